"""The scenario files, one drill each, in operators' words."""
