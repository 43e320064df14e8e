//! The backends, one file each.
