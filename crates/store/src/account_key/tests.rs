//! Sealed forms that were written must open for ever.
