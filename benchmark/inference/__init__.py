"""A trained network put to use: loaded, asked about pictures, exported, evaluated elsewhere."""
