-- Optuna and MLflow both keep a table alembic_version: a database for each.
CREATE DATABASE optuna;
