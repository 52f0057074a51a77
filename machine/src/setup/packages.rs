//! Debian packages that are unpacked into the cache and not installed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Setup, programs, say};
use crate::MachineError;

/// A kernel as a package has it.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) image: PathBuf,
    modules: PathBuf,
}

impl Setup {
    /// A statically linked busybox.
    pub(crate) fn busybox(&self) -> Result<PathBuf, MachineError> {
        let folder = self.unpacked("busybox-static")?;
        let candidates = ["bin/busybox", "usr/bin/busybox"];
        let found = candidates
            .iter()
            .map(|path| folder.join(path))
            .find(|path| path.exists());
        found.ok_or_else(|| incomplete("busybox-static", "busybox"))
    }

    /// Debian's kernel for virtual machines.
    pub(crate) fn kernel(&self) -> Result<Kernel, MachineError> {
        let folder = match self.cached("linux-image") {
            Some(folder) => folder,
            None => {
                let package = kernel_package()?;
                self.unpack(&package, "linux-image")?
            }
        };
        let only = |path: &Path, prefix: &str| -> Option<PathBuf> {
            let entries = fs::read_dir(path).ok()?.flatten();
            entries
                .map(|entry| entry.path())
                .find(|path| name_of(path).starts_with(prefix))
        };
        let image = only(&folder.join("boot"), "vmlinuz-")
            .ok_or_else(|| incomplete("linux-image", "vmlinuz"))?;
        let modules = only(&folder.join("lib/modules"), "")
            .ok_or_else(|| incomplete("linux-image", "modules"))?;
        Ok(Kernel {
            image,
            modules: modules.join("kernel"),
        })
    }

    fn unpacked(&self, package: &str) -> Result<PathBuf, MachineError> {
        match self.cached(package) {
            Some(folder) => Ok(folder),
            None => self.unpack(package, package),
        }
    }

    fn cached(&self, name: &str) -> Option<PathBuf> {
        let folder = self.cache.join("packages").join(name);
        folder.is_dir().then_some(folder)
    }

    /// Downloads and unpacks, first beside its place, so that what is cached is whole.
    fn unpack(&self, package: &str, name: &str) -> Result<PathBuf, MachineError> {
        say(&format!(
            "downloading Debian's package {package} (unpacked into the cache, not installed)"
        ));
        let folder = self.folder("packages")?;
        let scratch = folder.join(format!(".{name}"));
        let _ = fs::remove_dir_all(&scratch);
        fs::create_dir_all(&scratch).map_err(MachineError::file("make", &scratch))?;
        if programs::run_in(&scratch, "apt-get", &["download", package]).is_err() {
            // Without lists, or with old ones.
            programs::run("apt-get", &["update"])?;
            programs::run_in(&scratch, "apt-get", &["download", package])?;
        }
        let entries = fs::read_dir(&scratch)
            .map_err(MachineError::file("read", &scratch))?
            .flatten();
        let deb = entries
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|ending| ending == "deb"));
        let deb = deb.ok_or_else(|| incomplete(package, ".deb file"))?;
        let tree = scratch.join("tree");
        programs::run(
            "dpkg",
            &["-x", &deb.to_string_lossy(), &tree.to_string_lossy()],
        )?;
        let place = folder.join(name);
        fs::rename(&tree, &place).map_err(MachineError::file("make", &place))?;
        let _ = fs::remove_dir_all(&scratch);
        Ok(place)
    }
}

impl Kernel {
    /// Files of the modules and of all they depend on, in loading order.
    pub(crate) fn modules(&self, names: &[&str]) -> Result<Vec<PathBuf>, MachineError> {
        let mut found = Vec::new();
        for name in names {
            self.add_module(name, &mut found)?;
        }
        Ok(found)
    }

    /// What a module depends on stands in its own .modinfo section, as `depends=a,b`.
    fn add_module(&self, name: &str, found: &mut Vec<PathBuf>) -> Result<(), MachineError> {
        let file = format!("{}.ko", name.replace('-', "_"));
        // Built into this kernel, if it is no file.
        let Some(path) = find(&self.modules, &file) else {
            return Ok(());
        };
        if found.contains(&path) {
            return Ok(());
        }
        let bytes = fs::read(&path).map_err(MachineError::file("read", &path))?;
        let key = b"\0depends=";
        if let Some(at) = bytes.windows(key.len()).position(|window| window == key) {
            let value = bytes[at + key.len()..]
                .split(|&byte| byte == 0)
                .next()
                .unwrap_or_default();
            for dependency in String::from_utf8_lossy(value)
                .split(',')
                .filter(|name| !name.is_empty())
            {
                self.add_module(dependency, found)?;
            }
        }
        found.push(path);
        Ok(())
    }
}

/// The package that the meta package of the day depends on.
fn kernel_package() -> Result<String, MachineError> {
    let depends = |()| programs::output("apt-cache", &["depends", "linux-image-cloud-amd64"]);
    let named = |text: String| {
        let package = text
            .lines()
            .find_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
        package.map(|rest| format!("linux-image-{rest}"))
    };
    if let Some(package) = depends(()).ok().and_then(named) {
        return Ok(package);
    }
    programs::run("apt-get", &["update"])?;
    named(depends(())?).ok_or_else(|| incomplete("linux-image-cloud-amd64", "kernel it depends on"))
}

fn find(folder: &Path, file: &str) -> Option<PathBuf> {
    for entry in fs::read_dir(folder).ok()?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            if let Some(found) = find(&path, file) {
                return Some(found);
            }
        } else if name_of(&path).replace('-', "_") == file {
            return Some(path);
        }
    }
    None
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn incomplete(package: &str, what: &str) -> MachineError {
    MachineError::Incomplete {
        package: package.into(),
        what: what.into(),
    }
}
