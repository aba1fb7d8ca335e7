"""Write the tensor digests of published weight files into the manifest.

Run on files that are known to be the published ones: by their checksum, or, for the VGG16 of Keras
rebuilt from another container, by values that were printed of it (docs/notes/weights.md).

    python docs/measurements/tensor_digests.py FILE...
"""

import json
import sys
from pathlib import Path

from benchmark.models import weight_manifest
from benchmark.models.weight_formats import convert

TARGET = Path(weight_manifest.__file__).with_name("tensor_digests.json")

if __name__ == "__main__":
    content = json.loads(TARGET.read_text(encoding="utf-8"))
    for file in map(Path, sys.argv[1:]):
        assert file.name in {known.file_name for known in weight_manifest.FILES}, file.name
        content[file.name] = convert(file).digest
    TARGET.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
