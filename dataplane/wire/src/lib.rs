//! Checked views and builders of the packet headers weft reads and writes.
