//! Digests and extended attributes.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::Path,
};

use bytes::Bytes;
use guestline_proto::v1;

use super::{Files, call, to_wire};
use crate::Error;

/// How a digest is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChecksumAlgorithm {
    /// SHA-256.
    #[default]
    Sha256,
    /// BLAKE3.
    Blake3,
}

/// The digest of a file's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checksum {
    /// 32 bytes.
    pub digest: Vec<u8>,
    /// How many bytes it is of.
    pub size: u64,
}

/// A name with its namespace, as in `user.origin`, and a value.
pub type ExtendedAttribute = (OsString, Vec<u8>);

impl Files {
    /// The digest of a whole file, computed in the guest.
    pub async fn checksum(
        &self,
        path: impl AsRef<Path>,
        algorithm: ChecksumAlgorithm,
    ) -> Result<Checksum, Error> {
        self.checksum_range(path, algorithm, 0, None).await
    }

    /// The digest of `length` bytes (or of all to the end) from `offset` on.
    pub async fn checksum_range(
        &self,
        path: impl AsRef<Path>,
        algorithm: ChecksumAlgorithm,
        offset: u64,
        length: Option<u64>,
    ) -> Result<Checksum, Error> {
        let algorithm = match algorithm {
            ChecksumAlgorithm::Sha256 => v1::ChecksumAlgorithm::Sha256,
            ChecksumAlgorithm::Blake3 => v1::ChecksumAlgorithm::Blake3,
        };
        let answer = call!(self.checksum(v1::ChecksumRequest {
            path: to_wire(path),
            algorithm: algorithm.into(),
            offset,
            length,
        }))?;
        Ok(Checksum {
            digest: answer.digest.into(),
            size: answer.size,
        })
    }

    /// All extended attributes that the user may see.
    pub async fn extended_attributes(
        &self,
        path: impl AsRef<Path>,
    ) -> Result<Vec<ExtendedAttribute>, Error> {
        self.get_extended_attributes(to_wire(path), Vec::new(), false)
            .await
    }

    /// The same, of a symbolic link itself.
    pub async fn link_extended_attributes(
        &self,
        path: impl AsRef<Path>,
    ) -> Result<Vec<ExtendedAttribute>, Error> {
        self.get_extended_attributes(to_wire(path), Vec::new(), true)
            .await
    }

    /// The value of one extended attribute, if it is there.
    pub async fn extended_attribute(
        &self,
        path: impl AsRef<Path>,
        name: impl AsRef<OsStr>,
    ) -> Result<Option<Vec<u8>>, Error> {
        let names = vec![to_wire(name.as_ref())];
        let mut found = self
            .get_extended_attributes(to_wire(path), names, false)
            .await?;
        Ok(found.pop().map(|(_, value)| value))
    }

    async fn get_extended_attributes(
        &self,
        path: Bytes,
        names: Vec<Bytes>,
        no_follow: bool,
    ) -> Result<Vec<ExtendedAttribute>, Error> {
        let request = v1::GetExtendedAttributesRequest {
            path,
            no_follow,
            names,
        };
        let attributes = call!(self.get_extended_attributes(request))?.attributes;
        let named = |it: v1::ExtendedAttribute| {
            let name = OsStr::from_bytes(&it.name).into();
            (name, it.value.into())
        };
        Ok(attributes.into_iter().map(named).collect())
    }

    /// Sets one extended attribute.
    pub async fn set_extended_attribute(
        &self,
        path: impl AsRef<Path>,
        name: impl AsRef<OsStr>,
        value: impl Into<Bytes>,
    ) -> Result<(), Error> {
        let attribute = v1::ExtendedAttribute {
            name: to_wire(name.as_ref()),
            value: value.into(),
        };
        call!(
            self.set_extended_attributes(v1::SetExtendedAttributesRequest {
                path: to_wire(path),
                set: vec![attribute],
                ..Default::default()
            })
        )?;
        Ok(())
    }

    /// Removes one extended attribute.
    pub async fn remove_extended_attribute(
        &self,
        path: impl AsRef<Path>,
        name: impl AsRef<OsStr>,
    ) -> Result<(), Error> {
        call!(
            self.set_extended_attributes(v1::SetExtendedAttributesRequest {
                path: to_wire(path),
                remove: vec![to_wire(name.as_ref())],
                ..Default::default()
            })
        )?;
        Ok(())
    }
}
