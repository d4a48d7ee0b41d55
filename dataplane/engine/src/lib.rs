//! The packet pipeline: pure stages over batches, and their tables.
