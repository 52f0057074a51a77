//! The minimal image: a kernel and one initramfs with busybox. Busybox's init is process 1, reaps, and keeps the agent up.

use super::{COMMON_MODULES, Image, ImageKind, add_boot, archive::Archive, cached_initramfs};
use crate::{MachineError, Setup, setup::programs};

const INIT: &str = include_str!("../../images/minimal/init");
const INITTAB: &str = include_str!("../../images/minimal/inittab");

/// Debian's busybox has neither, and the agent creates users by the guest's own tools.
const USERADD: &str = include_str!("../../images/minimal/useradd");
const GROUPADD: &str = include_str!("../../images/minimal/groupadd");

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
const GROUP: &str = "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n";
const SHADOW: &str = "root:!:19000:0:99999:7:::\nnobody:!:19000:0:99999:7:::\n";

const OS_RELEASE: &str =
    "NAME=\"Guestline minimal\"\nID=guestline\nPRETTY_NAME=\"Guestline minimal\"\n";

pub(super) fn build(setup: &Setup) -> Result<Image, MachineError> {
    let parts = [
        INIT, INITTAB, USERADD, GROUPADD, PASSWD, GROUP, SHADOW, OS_RELEASE,
    ];
    Ok(Image {
        kernel: setup.kernel()?.image,
        initramfs: cached_initramfs(setup, ImageKind::Minimal, &parts, || archive(setup))?,
        disk: None,
    })
}

fn archive(setup: &Setup) -> Result<Archive, MachineError> {
    let mut archive = Archive::default();
    for folder in [
        "dev",
        "proc",
        "sys",
        "run",
        "etc",
        "home",
        "var",
        "usr",
        "usr/sbin",
        "usr/bin",
        "usr/local",
        "usr/local/bin",
        "sbin",
        "mnt",
    ] {
        archive.directory(folder, 0o755, 0);
    }
    archive.directory("root", 0o700, 0);
    archive.directory("tmp", 0o1777, 0);
    archive.directory("var/tmp", 0o1777, 0);
    add_boot(setup, &mut archive, &COMMON_MODULES, INIT)?;
    let busybox = setup.busybox()?;
    // Each applet as a link where its Debian counterpart is.
    for applet in programs::output(&busybox.to_string_lossy(), &["--list-full"])?.lines() {
        if applet != "bin/busybox" && !applet.starts_with("linuxrc") {
            archive.symlink(applet, "/bin/busybox");
        }
    }
    for (name, content) in [("inittab", INITTAB), ("passwd", PASSWD), ("group", GROUP)] {
        archive.file(
            &format!("etc/{name}"),
            0o644,
            0,
            content.as_bytes().to_vec(),
        );
    }
    for (name, script) in [("useradd", USERADD), ("groupadd", GROUPADD)] {
        let path = format!("usr/sbin/{name}");
        archive.file(&path, 0o755, 0, script.as_bytes().to_vec());
    }
    archive.file("etc/shadow", 0o600, 0, SHADOW.as_bytes().to_vec());
    archive.file("etc/os-release", 0o644, 0, OS_RELEASE.as_bytes().to_vec());
    Ok(archive)
}
