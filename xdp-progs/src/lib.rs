//! The XDP programs that steer packets into AF_XDP sockets, and their loader.
