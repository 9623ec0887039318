"""The page: one document, one style sheet, one script; served as they lie here."""
