//! The debian image: systemd, and the agent as the unit that we ship. The disk is made of Debian's packages by the host's
//! own apt sources; an initramfs mounts it, puts the agent and the users in, and goes over to it.

use std::{fs, path::Path};

use super::{
    Image, ImageKind, VSOCK_MODULES, add_boot, archive::Archive, cached_initramfs, fingerprint,
};
use crate::{
    MachineError, Setup,
    setup::{programs, say},
};

const INIT: &str = include_str!("../../images/debian/init");
const UNIT: &str = include_str!("../../images/debian/guestline-agent.service");

/// What is in it besides what Debian requires.
const PACKAGES: &str = "systemd-sysv,udev,dbus,sudo,procps,iproute2";

/// What the disk needs, unless the kernel has it built in.
const DISK_MODULES: [&str; 2] = ["virtio_blk", "ext4"];

/// Of the disk; the file is sparse.
const DISK_SIZE: &str = "2G";

pub(super) fn build(setup: &Setup) -> Result<Image, MachineError> {
    let folder = setup.folder("images")?;
    let disk = folder.join(format!(
        "debian-{}.ext4",
        fingerprint(&[PACKAGES, DISK_SIZE])
    ));
    if !disk.exists() {
        make_disk(setup, &disk)?;
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
    let modules = [&VSOCK_MODULES[..], &DISK_MODULES].concat();
    add_boot(setup, &mut archive, &modules, INIT)?;
    archive.file(
        "guestline-agent.service",
        0o644,
        0,
        UNIT.as_bytes().to_vec(),
    );
    Ok(archive)
}

fn make_disk(setup: &Setup, disk: &Path) -> Result<(), MachineError> {
    let (mmdebstrap, mke2fs) = (setup.mmdebstrap()?, setup.mke2fs()?);
    say("making Debian's file system from its packages, once (about a minute)");
    let tree = disk.with_extension("tree");
    let _ = fs::remove_dir_all(&tree);
    let include = format!("--include={PACKAGES}");
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
