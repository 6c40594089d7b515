"""FFCV's beton file format: settings, writer, reader, verification."""
