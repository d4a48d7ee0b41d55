//! AF_XDP sockets with a safe interface: UMEM, unique frames, rings, multi-buffer, TX checksum metadata.
