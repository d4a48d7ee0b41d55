//! Tunnel headers: one file per encapsulation. They write and read bytes, and know no tables.

pub mod vxlan;
