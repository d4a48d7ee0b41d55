//! The smallest XDP program that feeds sockets, loaded by hand: redirect to the socket of the queue, else drop.

// UNSAFETY: the bpf system call has no safe wrapper without libbpf, which these tests do without.
#![expect(unsafe_code, reason = "bpf(2)")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_MAP_TYPE_XSKMAP: u32 = 17;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;
const BPF_XDP: u32 = 37;
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const QUEUES: u32 = 8;

/// A program attached in generic mode, and its sockets by queue.
pub struct Redirect {
    sockets: OwnedFd,
    _link: OwnedFd,
}

impl Redirect {
    pub fn attach(ifindex: u32) -> Self {
        let sockets = map_create();
        let program = load(&sockets);
        let link = call(
            BPF_LINK_CREATE,
            LinkCreate {
                prog_fd: program.as_raw_fd() as u32,
                target_ifindex: ifindex,
                attach_type: BPF_XDP,
                flags: XDP_FLAGS_SKB_MODE,
                rest: [0; 4],
            },
        );
        Self {
            sockets,
            _link: owned(link),
        }
    }

    pub fn set(&self, queue: u32, socket: BorrowedFd<'_>) {
        let value = socket.as_raw_fd() as u32;
        let done = call(
            BPF_MAP_UPDATE_ELEM,
            MapUpdate {
                map_fd: self.sockets.as_raw_fd() as u32,
                pad: 0,
                key: &raw const queue as u64,
                value: &raw const value as u64,
                flags: 0,
            },
        );
        assert_eq!(done, 0);
    }
}

#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    rest: [u32; 12],
}

#[repr(C)]
struct MapUpdate {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct ProgramLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
    rest: [u32; 4],
}

fn map_create() -> OwnedFd {
    owned(call(
        BPF_MAP_CREATE,
        MapCreate {
            map_type: BPF_MAP_TYPE_XSKMAP,
            key_size: 4,
            value_size: 4,
            max_entries: QUEUES,
            rest: [0; 12],
        },
    ))
}

fn load(sockets: &OwnedFd) -> OwnedFd {
    let insn = |code: u8, dst: u8, src: u8, off: i16, imm: i32| {
        u64::from(code)
            | u64::from(src << 4 | dst) << 8
            | u64::from(off as u16) << 16
            | u64::from(imm as u32) << 32
    };
    let program = [
        // r2 = context->rx_queue_index
        insn(0x61, 2, 1, 16, 0),
        // r1 = the map (BPF_PSEUDO_MAP_FD), a load of 64 bits
        insn(0x18, 1, 1, 0, sockets.as_raw_fd()),
        insn(0, 0, 0, 0, 0),
        // r3 = XDP_DROP, where the map has no socket
        insn(0xb7, 3, 0, 0, 1),
        // r0 = bpf_redirect_map(r1, r2, r3)
        insn(0x85, 0, 0, 0, 51),
        insn(0x95, 0, 0, 0, 0),
    ];
    let license = c"GPL";
    owned(call(
        BPF_PROG_LOAD,
        ProgramLoad {
            prog_type: BPF_PROG_TYPE_XDP,
            insn_cnt: program.len() as u32,
            insns: program.as_ptr() as u64,
            license: license.as_ptr() as u64,
            log_level: 0,
            log_size: 0,
            log_buf: 0,
            kern_version: 0,
            prog_flags: BPF_F_XDP_HAS_FRAGS,
            prog_name: *b"weft_test\0\0\0\0\0\0\0",
            prog_ifindex: 0,
            expected_attach_type: BPF_XDP,
        },
    ))
}

fn call<T>(command: libc::c_int, attributes: T) -> libc::c_int {
    // SAFETY: the attributes and what they point to live across the call; their size is told.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            &raw const attributes,
            size_of::<T>(),
        )
    };
    assert!(
        result >= 0,
        "bpf command {command}: {}",
        io::Error::last_os_error()
    );
    result as libc::c_int
}

fn owned(fd: libc::c_int) -> OwnedFd {
    // SAFETY: just returned by the kernel.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
