//! On which core the kernel works on the acknowledgements that pods send: on the one that sent what they acknowledge.
//!
//! What a pod sends is received at the host end on the core that sent it, up to the other pod's TCP. An acknowledgement
//! leaves from the core of who reads, and what it lets go would leave the other pod from there, too: one core did
//! everything while the sender's was idle. Receive packet steering (`rps_cpus` of the host end) chooses a core by a
//! packet's hash. `weft_shortcut_out` gives acknowledgements the hash of their core, and all else one that has none.
//!
//! What the node acknowledges stays where it is: eight streams from a pod to the node had 15.2 Gb/s instead of 25 with it
//! (medians of nine runs in turns; the segments are of 1,398 bytes there, so acknowledgements are many).

use std::io;

use weft_xdp_progs::Programs;
use weft_xdp_progs::intf::CORES_MAX;

use crate::sysfs;

/// Prepares a host end whose far end has `weft_shortcut_out`. Nothing changes where there is one core.
///
/// # Errors
/// What the kernel says.
pub fn prepare(programs: &Programs, ifname: &str) -> io::Result<()> {
    let online = cores(&std::fs::read_to_string("/sys/devices/system/cpu/online")?)?;
    if online.len() < 2 {
        return Ok(());
    }
    let setting = sysfs::setting(&format!("class/net/{ifname}/queues/rx-0/rps_cpus"))?;
    sysfs::write(&setting, &mask(&online))?;
    // The kernel leaves out isolated cores.
    let chosen = cores_of_mask(&sysfs::read(&setting)?)?;
    for (core, hash) in hashes(&chosen) {
        programs
            .set_core_hash(core, hash)
            .map_err(io::Error::other)?;
    }
    Ok(())
}

/// A hash for each of `cores`: the kernel takes the n-th of them for the n-th part of all hashes (`get_rps_cpu`,
/// net/core/dev.c).
fn hashes(cores: &[u32]) -> impl Iterator<Item = (u32, u32)> {
    let all = cores.len() as u64;
    let middle = move |nth: u64| (((nth << 32) + (1 << 31)) / all) as u32;
    let cores = cores.iter().copied().filter(|core| *core < CORES_MAX);
    cores.zip(0..).map(move |(core, nth)| (core, middle(nth)))
}

fn malformed(text: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("no list of cores: '{text}'"),
    )
}

/// From `0-2,5`.
fn cores(list: &str) -> io::Result<Vec<u32>> {
    let mut all = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.parse::<u32>().ok().filter(|core| *core < CORES_MAX);
        match (number(first), number(last)) {
            (Some(first), Some(last)) => all.extend(first..=last),
            _ => return Err(malformed(list)),
        }
    }
    Ok(all)
}

/// As the kernel has it: groups of 32 bits in hexadecimal digits, the highest first.
fn mask(cores: &[u32]) -> String {
    let groups = cores.iter().max().map_or(1, |last| last / 32 + 1);
    let group = |number| {
        let of_group = cores.iter().filter(|core| **core / 32 == number);
        let bits = of_group.fold(0_u32, |bits, core| bits | 1 << (core % 32));
        format!("{bits:08x}")
    };
    let groups: Vec<_> = (0..groups).rev().map(group).collect();
    groups.join(",")
}

fn cores_of_mask(mask: &str) -> io::Result<Vec<u32>> {
    let mut all = Vec::new();
    for (number, group) in mask.split(',').rev().enumerate() {
        let bits = u32::from_str_radix(group, 16).map_err(|_| malformed(mask))?;
        let first = number as u32 * 32;
        all.extend(
            (0..32)
                .filter(|bit| bits >> bit & 1 == 1)
                .map(|bit| first + bit),
        );
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `reciprocal_scale`, linux/kernel.h.
    fn chosen(hash: u32, cores: &[u32]) -> u32 {
        cores[((u64::from(hash) * cores.len() as u64) >> 32) as usize]
    }

    #[test]
    fn the_kernel_chooses_each_core_by_its_hash() {
        for cores in [vec![0, 1], vec![1, 3, 4], (0..1_000).collect()] {
            for (core, hash) in hashes(&cores) {
                assert_ne!(hash, 0, "the hash of no core");
                assert_eq!(chosen(hash, &cores), core);
            }
            assert_eq!(hashes(&cores).count(), cores.len());
        }
    }

    #[test]
    fn lists_and_masks_are_read_and_written() {
        assert_eq!(cores("0-2,5\n").unwrap(), [0, 1, 2, 5]);
        assert_eq!(cores("7").unwrap(), [7]);
        assert_eq!(mask(&[0, 1]), "00000003");
        assert_eq!(mask(&[0, 33]), "00000002,00000001");
        assert_eq!(cores_of_mask("3").unwrap(), [0, 1]);
        assert_eq!(cores_of_mask("00000002,00000001").unwrap(), [0, 33]);
        for wrong in ["", "a", "0-", "0-5000", "4294967296"] {
            assert!(cores(wrong).is_err(), "{wrong}");
        }
        assert!(cores_of_mask("no").is_err());
    }
}
