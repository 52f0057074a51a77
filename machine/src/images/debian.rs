//! The debian image: systemd, and the agent as the unit that we ship. The disk is made of Debian's packages by the host's
//! own apt sources; an initramfs mounts it, puts the agent and the users in, and goes over to it.

use std::{collections::BTreeSet, fs, path::Path};

use super::{
    COMMON_MODULES, Image, ImageKind, add_boot, archive::Archive, cached_initramfs, fingerprint,
};
use crate::{
    MachineError, Setup,
    setup::{programs, say},
};

const INIT: &str = include_str!("../../images/debian/init");
const UNIT: &str = include_str!("../../images/debian/guestline-agent.service");

/// What is in it besides what Debian requires.
const PACKAGES: &str =
    "systemd-sysv,udev,dbus,libpam-systemd,sudo,procps,iproute2,libnss-extrausers";

/// What the disk needs, unless the kernel has it built in; what a test makes a file system with quotas of; and serial
/// channels.
const DISK_MODULES: [&str; 5] = ["virtio_blk", "ext4", "loop", "quota_v2", "virtio_console"];

/// Of the disk; the file is sparse.
const DISK_SIZE: &str = "2G";

/// With `more` packages than it has by itself: another disk, and the same initramfs.
pub(super) fn build(setup: &Setup, more: &[String]) -> Result<Image, MachineError> {
    let packages = packages(more)?;
    let folder = setup.folder("images")?;
    let disk = folder.join(format!(
        "debian-{}.ext4",
        fingerprint(&[&packages, DISK_SIZE])
    ));
    if !disk.exists() {
        make_disk(setup, &disk, &packages)?;
    }
    let parts = [&[INIT, UNIT][..], &DISK_MODULES].concat();
    Ok(Image {
        kernel: setup.kernel()?.image,
        initramfs: cached_initramfs(setup, ImageKind::Debian, &parts, || archive(setup))?,
        disk: Some(disk),
    })
}

fn archive(setup: &Setup) -> Result<Archive, MachineError> {
    let mut archive = Archive::default();
    for folder in ["dev", "proc", "sys", "root"] {
        archive.directory(folder, 0o755, 0);
    }
    let modules = [&COMMON_MODULES[..], &DISK_MODULES].concat();
    add_boot(setup, &mut archive, &modules, INIT)?;
    archive.file(
        "guestline-agent.service",
        0o644,
        0,
        UNIT.as_bytes().to_vec(),
    );
    Ok(archive)
}

/// As mmdebstrap takes them, the same for the same set.
fn packages(more: &[String]) -> Result<String, MachineError> {
    // Debian Policy, 5.6.7. A comma would be another package, and a leading `-` or `.` is none.
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let valid = |name: &&String| {
        name.bytes().next().is_some_and(plain)
            && name
                .bytes()
                .all(|byte| plain(byte) || b"+-.".contains(&byte))
    };
    if let Some(package) = more.iter().find(|name| !valid(name)) {
        let package = package.clone();
        return Err(MachineError::InvalidPackage { package });
    }
    let more: BTreeSet<&str> = more.iter().map(String::as_str).collect();
    let all: Vec<&str> = PACKAGES.split(',').chain(more).collect();
    Ok(all.join(","))
}

fn make_disk(setup: &Setup, disk: &Path, packages: &str) -> Result<(), MachineError> {
    let (mmdebstrap, mke2fs) = (setup.mmdebstrap()?, setup.mke2fs()?);
    say("making Debian's file system from its packages, once (about a minute)");
    let tree = disk.with_extension("tree");
    let _ = fs::remove_dir_all(&tree);
    let include = format!("--include={packages}");
    // Without a mirror, mmdebstrap takes the host's own sources.
    let suite = suite()?;
    let tree_name = tree.to_string_lossy();
    let arguments = [
        "--variant=minbase",
        "--quiet",
        &include,
        "--aptopt=APT::Sandbox::User \"root\"",
        &suite,
        &tree_name,
    ];
    let made = programs::run(&mmdebstrap.to_string_lossy(), &arguments).and_then(|()| {
        let scratch = disk.with_extension("part");
        let _ = fs::remove_file(&scratch);
        let scratch_name = scratch.to_string_lossy();
        let arguments = [
            "-q",
            "-t",
            "ext4",
            "-L",
            "guestline",
            "-d",
            &tree_name,
            &scratch_name,
            DISK_SIZE,
        ];
        programs::run(&mke2fs.to_string_lossy(), &arguments)?;
        fs::rename(&scratch, disk).map_err(MachineError::file("make", disk))
    });
    let _ = fs::remove_dir_all(&tree);
    made
}

/// The host's own release, whose packages its sources have.
fn suite() -> Result<String, MachineError> {
    let text = fs::read_to_string("/etc/os-release")
        .map_err(MachineError::file("read", "/etc/os-release"))?;
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    Ok(name.unwrap_or("stable").trim_matches('"').into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_the_images_own_and_a_set_more() {
        let of = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.into()).collect();
            packages(&names)
        };
        assert_eq!(of(&[]).unwrap(), PACKAGES);
        let two = of(&["openssh-server", "git", "git"]).unwrap();
        assert_eq!(two, format!("{PACKAGES},git,openssh-server"));
        assert_eq!(of(&["git", "openssh-server"]).unwrap(), two);
        for name in ["", "a,b", "-x", "A", "a b", "./x"] {
            assert!(
                matches!(of(&[name]), Err(MachineError::InvalidPackage { .. })),
                "{name:?}"
            );
        }
    }
}
