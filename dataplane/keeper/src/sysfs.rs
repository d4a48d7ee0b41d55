//! The kernel's settings of devices in the calling thread's network namespace.

use std::fs::File;
use std::io::{self, Read, Seek, Write};

use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

/// Longest setting read, in bytes: a mask of 4,096 cores takes 1,152.
const BYTES_MAX: u64 = 4_096;

/// Opens the setting at `path` below /sys.
///
/// # Errors
/// What the kernel says; `ENOENT` when there is no such device or setting.
pub fn setting(path: &str) -> io::Result<File> {
    // Where /sys is mounted it may show another network namespace; one of our own shows the calling thread's.
    let sysfs = fsopen("sysfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&sysfs)?;
    let root = fsmount(
        &sysfs,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )?;
    let file = openat(&root, path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    Ok(file.into())
}

/// What it is, without the end of line.
///
/// # Errors
/// What the kernel says.
pub fn read(mut setting: &File) -> io::Result<String> {
    let mut text = String::new();
    setting.rewind()?;
    setting.take(BYTES_MAX).read_to_string(&mut text)?;
    Ok(text.trim().to_owned())
}

/// Sets it.
///
/// # Errors
/// What the kernel says.
pub fn write(mut setting: &File, text: &str) -> io::Result<()> {
    setting.rewind()?;
    setting.write_all(text.as_bytes())
}
