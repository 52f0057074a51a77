//! What a machine boots: a kernel, an initramfs and perhaps a disk.

mod archive;
mod debian;
mod minimal;
mod overlay;

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{MachineError, Setup, machine::kernel_vsock_works};

pub(crate) use overlay::overlay;

/// Modules that every image loads: the vsock to the host, what QEMU hands in, where the machine's secret is, and what tests
/// need of a kernel: the vsock's loopback, FUSE, and its list of Unix sockets.
const COMMON_MODULES: [&str; 6] = [
    "qemu_fw_cfg",
    "virtio_pci",
    "vmw_vsock_virtio_transport",
    "vsock_loopback",
    "fuse",
    "unix_diag",
];

/// What each image's init prints on the console when the guest can be connected to.
pub(crate) const DRIVER_IS_UP: &str = "guestline: the vsock driver is up";

/// Which image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImageKind {
    /// A kernel and an initramfs with busybox and the agent: seconds to boot.
    #[default]
    Minimal,
    /// Debian with systemd, the agent as a unit.
    Debian,
}

impl ImageKind {
    /// As it is named on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Minimal => "minimal",
            Self::Debian => "debian",
        }
    }
}

/// The cached base of an image.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) kernel: PathBuf,
    pub(crate) initramfs: PathBuf,
    /// A raw disk that machines see and never change.
    pub(crate) disk: Option<PathBuf>,
}

impl Setup {
    /// Makes the image, unless it is cached, and says where it is.
    pub fn image(&self, kind: ImageKind) -> Result<PathBuf, MachineError> {
        self.base_image(kind, &[]).map(|image| image.initramfs)
    }

    /// The same for an image with more Debian packages, and all else that a machine with it needs: its start is quick then.
    pub fn prepare(&self, kind: ImageKind, packages: &[String]) -> Result<(), MachineError> {
        self.base_image(kind, packages)?;
        self.qemu()?;
        if !kernel_vsock_works() {
            self.vhost_device_vsock()?;
        }
        Ok(())
    }

    pub(crate) fn base_image(
        &self,
        kind: ImageKind,
        packages: &[String],
    ) -> Result<Image, MachineError> {
        let _held = self.hold()?;
        match kind {
            ImageKind::Minimal => match packages.first() {
                Some(package) => Err(MachineError::NoPackages {
                    package: package.clone(),
                }),
                None => minimal::build(self),
            },
            ImageKind::Debian => debian::build(self, packages),
        }
    }
}

/// Adds an init script, busybox and kernel modules, which `/modules/order` lists in loading order.
fn add_boot(
    setup: &Setup,
    archive: &mut archive::Archive,
    modules: &[&str],
    init: &str,
) -> Result<(), MachineError> {
    let kernel = setup.kernel()?;
    archive.directory("modules", 0o755, 0);
    let mut order = String::new();
    for module in kernel.modules(modules)? {
        let name = module
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        archive.file(&format!("modules/{name}"), 0o644, 0, read(&module)?);
        order.push_str(&format!("/modules/{name}\n"));
    }
    archive.file("modules/order", 0o644, 0, order.into_bytes());
    archive.directory("bin", 0o755, 0);
    archive.file("bin/busybox", 0o755, 0, read(&setup.busybox()?)?);
    archive.file("init", 0o755, 0, init.as_bytes().to_vec());
    Ok(())
}

/// An initramfs that is made once: `parts` are all that it is made of besides Debian's packages.
fn cached_initramfs(
    setup: &Setup,
    kind: ImageKind,
    parts: &[&str],
    make: impl FnOnce() -> Result<archive::Archive, MachineError>,
) -> Result<PathBuf, MachineError> {
    let kernel = setup.kernel()?.image;
    let kernel = kernel.to_string_lossy();
    let parts = [&COMMON_MODULES[..], parts, &[&kernel]].concat();
    let name = format!("{}-{}.cpio", kind.name(), fingerprint(&parts));
    let path = setup.folder("images")?.join(name);
    if !path.exists() {
        let bytes = make()?.to_bytes();
        write_whole(&path, &bytes.map_err(MachineError::file("make", &path))?)?;
    }
    Ok(path)
}

/// A name for a cache entry that changes with what is in it.
fn fingerprint(parts: &[&str]) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    env!("CARGO_PKG_VERSION").hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn read(path: &Path) -> Result<Vec<u8>, MachineError> {
    fs::read(path).map_err(MachineError::file("read", path))
}

/// Writes beside the place and renames, so that what is cached is whole.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), MachineError> {
    let scratch = path.with_extension("part");
    fs::write(&scratch, bytes).map_err(MachineError::file("write", &scratch))?;
    fs::rename(&scratch, path).map_err(MachineError::file("make", path))
}
