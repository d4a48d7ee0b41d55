//! Which kernel this is.

/// Whether its version, major and minor number, is this one or a later one. One that cannot be read is not.
pub fn is_since(since: (u32, u32)) -> bool {
    nix::sys::utsname::uname().is_ok_and(|name| {
        version(&name.release().to_string_lossy()).is_some_and(|version| version >= since)
    })
}

/// Major and minor number of a kernel's release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_told_apart() {
        assert_eq!(version("6.18.44-generic"), Some((6, 18)));
        assert_eq!(version("6.9-rc1"), Some((6, 9)));
        assert_eq!(version("6"), None);
        assert_eq!(version("unknown"), None);
    }
}
