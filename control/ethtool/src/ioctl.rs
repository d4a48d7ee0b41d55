//! The ioctl itself: one socket, one request at a time, every buffer sized before the call.

// UNSAFETY: SIOCETHTOOL takes a pointer to a buffer whose size the command implies; no crate in use
// wraps it for feature words, and netlink's ethtool family would cost a second netlink stack.
#![expect(unsafe_code, reason = "SIOCETHTOOL passes a pointer to a buffer")]

use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::{Block, Error};

/// `include/uapi/linux/sockios.h`.
const SIOCETHTOOL: u64 = 0x8946;
/// `include/uapi/linux/ethtool.h`.
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETHTOOL_SFEATURES: u32 = 0x3b;
/// String set of feature names, and the length of each in bytes.
const ETH_SS_FEATURES: u32 = 4;
const STRING_BYTES: usize = 32;
/// `struct ethtool_drvinfo`, and where its driver and bus are.
const DRIVER_WORDS: usize = 49;
const NAME_WORDS: Range<usize> = 1..9;
const BUS_WORDS: Range<usize> = 25..33;
/// Most features believed: Linux 6.18 has 63 and room for 128. Bounds the buffer of names, whose
/// length the kernel decides.
const FEATURES_MAX: usize = 1024;

nix::ioctl_readwrite_bad!(siocethtool, SIOCETHTOOL, InterfaceRequest);

/// `struct ifreq` with its data pointer.
#[repr(C)]
pub struct InterfaceRequest {
    name: [u8; 16],
    data: *mut u32,
    rest: [u8; 16],
}

const _: () = assert!(size_of::<InterfaceRequest>() == size_of::<nix::libc::ifreq>());

/// An interface, by name, in the namespace of the thread that opened it.
pub(crate) struct Device<'a> {
    socket: OwnedFd,
    ifname: &'a str,
    name: [u8; 16],
}

impl<'a> Device<'a> {
    pub(crate) fn open(ifname: &'a str) -> Result<Self, Error> {
        let mut name = [0; 16];
        let bytes = ifname.as_bytes();
        if bytes.is_empty() || bytes.len() >= name.len() || bytes.contains(&0) {
            return Err(Error::Name(ifname.to_owned()));
        }
        name[..bytes.len()].copy_from_slice(bytes);
        let (family, flags) = (AddressFamily::Inet, SockFlag::SOCK_CLOEXEC);
        let opened = socket(family, SockType::Datagram, flags, None)
            .or_else(|_| socket(AddressFamily::Inet6, SockType::Datagram, flags, None));
        let socket = opened.map_err(|source| Error::Kernel {
            ifname: ifname.to_owned(),
            action: "open a socket for the features",
            source,
        })?;
        Ok(Self {
            socket,
            ifname,
            name,
        })
    }

    /// The kernel's names of the feature bits, in their order; reserved bits have empty names.
    pub(crate) fn feature_names(&self) -> Result<Vec<String>, Error> {
        let action = "read the feature names";
        let mut info = [ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_FEATURES, 0, 0];
        self.call(action, &mut info)?;
        let count = info[4] as usize;
        if count > FEATURES_MAX {
            return Err(self.refused(action, Errno::EOVERFLOW));
        }
        let mut strings = vec![0; 3 + count * STRING_BYTES / 4];
        strings[..3].copy_from_slice(&[ETHTOOL_GSTRINGS, ETH_SS_FEATURES, count as u32]);
        self.call(action, &mut strings)?;
        let names = strings[3..].chunks_exact(STRING_BYTES / 4);
        Ok(names.map(text).collect())
    }

    /// Where the device is plugged in; empty of one that software made.
    pub(crate) fn bus(&self) -> Result<String, Error> {
        self.driver_words(BUS_WORDS)
    }

    /// What drives the device; empty when it does not say.
    pub(crate) fn driver(&self) -> Result<String, Error> {
        self.driver_words(NAME_WORDS)
    }

    fn driver_words(&self, words: Range<usize>) -> Result<String, Error> {
        let mut driver = [0; DRIVER_WORDS];
        driver[0] = ETHTOOL_GDRVINFO;
        match self.call("read the driver", &mut driver) {
            Err(Error::Kernel {
                source: Errno::EOPNOTSUPP,
                ..
            }) => Ok(String::new()),
            result => result.map(|()| text(&driver[words])),
        }
    }

    /// The state of the first `count` features.
    pub(crate) fn feature_blocks(&self, count: usize) -> Result<Vec<Block>, Error> {
        let words = count.div_ceil(32);
        let mut request = vec![0; 2 + words * 4];
        request[..2].copy_from_slice(&[ETHTOOL_GFEATURES, words as u32]);
        self.call("read the features", &mut request)?;
        let block = |w: &[u32]| Block {
            available: w[0],
            active: w[2],
            never_changed: w[3],
        };
        Ok(request[2..].chunks_exact(4).map(block).collect())
    }

    /// Requests features: one (valid, requested) pair of words for 32 of them. Whether the driver
    /// followed is seen by reading them again.
    pub(crate) fn change_features(&self, change: &[(u32, u32)]) -> Result<(), Error> {
        let mut request = vec![ETHTOOL_SFEATURES, change.len() as u32];
        request.extend(change.iter().flat_map(|(valid, on)| [*valid, *on]));
        self.call("switch the features", &mut request)
    }

    /// One request. `buffer` must be as long as its command makes the kernel write, which every
    /// caller above sees to.
    fn call(&self, action: &'static str, buffer: &mut [u32]) -> Result<(), Error> {
        let mut request = InterfaceRequest {
            name: self.name,
            data: buffer.as_mut_ptr(),
            rest: [0; 16],
        };
        // SAFETY: `request` has the layout of `struct ifreq` (asserted above) and lives across the
        // call; `data` points to `buffer`, exclusively borrowed, which its builder sized for the
        // command: GSSET_INFO with one set writes one word after its header, GSTRINGS writes `count`
        // names of 32 bytes, where `count` is what the same kernel reported (a constant of its
        // build), GDRVINFO writes its structure of 49 words, GFEATURES writes at most the words announced in `size`, SFEATURES writes nothing.
        let result = unsafe { siocethtool(self.socket.as_raw_fd(), &raw mut request) };
        result.map_err(|source| self.refused(action, source))?;
        Ok(())
    }

    fn refused(&self, action: &'static str, source: Errno) -> Error {
        Error::Kernel {
            ifname: self.ifname.to_owned(),
            action,
            source,
        }
    }
}

/// A string of the kernel, up to its end.
fn text(words: &[u32]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}
