"""Read recipes strictly: YAML, sections, native options, contradictions."""
