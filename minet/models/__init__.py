"""One architecture per file, and the registry that maps names to builders."""
