"""What reads other tools' configs: an importer with a table of keys for each."""
