//! `GET` and `PUT /v1/vms/{vm}/files/{path}`: files and directories as JSON, as the SDK wants them.
//!
//! The path is one segment, percent-encoded, and decoded once: `%2Fetc%2Fhosts`. It is bytes, and which of them the user may
//! open, the guest's kernel decides. A relative path starts at the VM's workdir, else at the user's home.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use axum::{
    Json,
    extract::{Request, State},
    http::{Method, Uri},
    response::IntoResponse,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use guestline_client::{Error as GuestError, ErrorReason, FileReader, FileType, Vm};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    app::App,
    body::read_json,
    error::{ApiError, Code},
    guard::Permitted,
    identities::Empty,
    table::{Answer, Table},
};
use crate::{audit::Operation, machines::AwakeGuest, sessions::Verb};

/// Entries in one listing: some MiB of JSON. The streaming interfaces of the client have no such bound.
const MAX_ENTRIES: usize = 50_000;

/// Of their names together, which a guest may make as long as it likes.
const MAX_NAMES: usize = 16 << 20;

/// Of the JSON around a file's content.
const JSON_OVERHEAD: usize = 4096;

pub(super) fn add(table: &mut Table) {
    const FILE: &str = "/v1/vms/{vm_id}/files/{filepath}";
    // Where URL normalisation leads the empty path and `.`.
    const WORKDIR: &str = "/v1/vms/{vm_id}/files/";
    table
        .add(
            Method::GET,
            FILE,
            Verb::ReadFile,
            "A file's content, or a directory's entries",
            get,
        )
        .answers::<Content>();
    table
        .add(
            Method::GET,
            WORKDIR,
            Verb::ReadFile,
            "The working directory's entries",
            get,
        )
        .answers::<Listing>();
    table
        .add(
            Method::PUT,
            FILE,
            Verb::WriteFile,
            "Replace or create a file, atomically",
            put,
        )
        .takes::<NewContent>()
        .answers::<Empty>();
}

#[derive(Debug, Serialize, ToSchema)]
struct Content {
    content: String,
    /// utf8 or base64.
    encoding: &'static str,
}

#[derive(Debug, Serialize, ToSchema)]
struct Listing {
    files: Vec<Entry>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Entry {
    name: String,
    /// file or directory; a symbolic link is what it leads to, and a file if that cannot be found out.
    kind: &'static str,
}

#[derive(Debug, Deserialize, ToSchema)]
struct NewContent {
    content: String,
    /// utf8, which is the default, or base64.
    #[serde(default)]
    encoding: Option<String>,
}

async fn get(State(app): State<App>, permitted: Permitted, uri: Uri) -> Answer {
    let path = path_of(&uri, "/files/")?;
    permitted.operation.begin(path.to_string_lossy());
    let guest = app.guest(&permitted).await?;
    let path = resolve(&guest, path);
    match guest.vm().files().open(&path).await {
        Ok(reader) => read(reader, &path, app.settings.max_file, &permitted.operation).await,
        Err(error) if error.reason() == Some(ErrorReason::IsADirectory) => {
            let listing = list(guest.vm(), &path).await;
            Ok(Json(listing.map_err(|error| error.into_api(&path))?).into_response())
        }
        Err(error) => Err(file_error(error, &path)),
    }
}

async fn read(mut reader: FileReader, path: &Path, limit: usize, operation: &Operation) -> Answer {
    let too_large = || {
        let text = format!(
            "the file has more than {limit} bytes: read it at …/raw-files/{{path}}, in ranges if you like"
        );
        ApiError::new(Code::FilesBadRequest, text)
    };
    if reader.metadata().size > limit as u64 {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = reader
        .chunk()
        .await
        .map_err(|error| file_error(error, path))?
    {
        // A file may grow while it is read, and /proc's have no size.
        if bytes.len() + chunk.len() > limit {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    operation.add_bytes_out(bytes.len());
    let content = match String::from_utf8(bytes) {
        Ok(content) => Content {
            content,
            encoding: "utf8",
        },
        Err(error) => Content {
            content: STANDARD.encode(error.as_bytes()),
            encoding: "base64",
        },
    };
    Ok(Json(content).into_response())
}

enum ListError {
    Guest(GuestError),
    TooLong,
}

impl ListError {
    fn into_api(self, path: &Path) -> ApiError {
        match self {
            Self::Guest(error) => file_error(error, path),
            Self::TooLong => ApiError::new(
                Code::FilesBadRequest,
                format!(
                    "the directory has more than {MAX_ENTRIES} entries, or {MAX_NAMES} bytes of names"
                ),
            ),
        }
    }
}

async fn list(guest: &Vm, path: &Path) -> Result<Listing, ListError> {
    let mut stream = guest
        .files()
        .list(path, 1)
        .await
        .map_err(ListError::Guest)?;
    let (mut files, mut names) = (Vec::new(), 0);
    while let Some(entry) = stream.next().await.map_err(ListError::Guest)? {
        names += entry.name().as_os_str().len();
        if files.len() == MAX_ENTRIES || names > MAX_NAMES {
            return Err(ListError::TooLong);
        }
        let directory = match entry.file_type {
            FileType::Directory => true,
            FileType::Symlink => {
                let target = guest.files().stat(path.join(&entry.path)).await;
                target.is_ok_and(|target| target.is_dir())
            }
            _ => false,
        };
        let kind = if directory { "directory" } else { "file" };
        files.push(Entry {
            name: entry.name().to_string_lossy().into_owned(),
            kind,
        });
    }
    Ok(Listing { files })
}

async fn put(State(app): State<App>, permitted: Permitted, uri: Uri, request: Request) -> Answer {
    let path = path_of(&uri, "/files/")?;
    permitted.operation.begin(path.to_string_lossy());
    let limit = app.settings.max_file;
    let body_limit = limit / 3 * 4 + JSON_OVERHEAD;
    let new: NewContent = read_json(request, body_limit, Code::FilesBadRequest).await?;
    let content = match new.encoding.as_deref() {
        None | Some("utf8" | "utf-8") => new.content.into_bytes(),
        Some("base64") => STANDARD.decode(new.content).map_err(|error| {
            let text = format!("the content is not base64: {error}");
            ApiError::new(Code::InvalidBase64, text).with("path", path.to_string_lossy())
        })?,
        Some(other) => {
            let text = format!("encoding: {other:?} is neither utf8 nor base64");
            return Err(ApiError::new(Code::FilesBadRequest, text));
        }
    };
    if content.len() > limit {
        return Err(ApiError::new(
            Code::FilesBadRequest,
            format!("the content has more than {limit} bytes"),
        ));
    }
    permitted.operation.add_bytes_in(content.len());
    let guest = app.guest(&permitted).await?;
    let path = resolve(&guest, path);
    let written = guest.vm().files().write(&path, content).await;
    written.map_err(|error| file_error(error, &path))?;
    Ok(Json(Empty {}).into_response())
}

/// What is behind `marker`, decoded once, byte by byte.
pub(super) fn path_of(uri: &Uri, marker: &str) -> Result<PathBuf, ApiError> {
    let raw = uri
        .path()
        .split_once(marker)
        .map(|(_, raw)| raw)
        .unwrap_or_default();
    let bytes: Vec<u8> = percent_decode_str(raw).collect();
    if bytes.contains(&0) {
        return Err(ApiError::new(
            Code::FilesBadRequest,
            "a path has no NUL byte",
        ));
    }
    if bytes.is_empty() {
        return Ok(".".into());
    }
    Ok(OsStr::from_bytes(&bytes).into())
}

pub(super) fn resolve(guest: &AwakeGuest, path: PathBuf) -> PathBuf {
    match guest.workdir() {
        Some(workdir) => Path::new(workdir).join(path),
        None => path,
    }
}

/// What a guest says about a path, in the contract's codes.
pub(super) fn file_error(error: GuestError, path: &Path) -> ApiError {
    let code = match error.reason() {
        Some(ErrorReason::NotFound) => Code::FileNotFound,
        Some(
            ErrorReason::PermissionDenied
            | ErrorReason::SwitchedOff
            | ErrorReason::ReadOnlyFileSystem,
        ) => Code::Forbidden,
        Some(
            ErrorReason::NotADirectory
            | ErrorReason::IsADirectory
            | ErrorReason::SpecialFile
            | ErrorReason::SymlinkLoop
            | ErrorReason::NameTooLong
            | ErrorReason::InvalidArgument
            | ErrorReason::FileTooLarge
            | ErrorReason::NoSpace
            | ErrorReason::QuotaExceeded
            | ErrorReason::Busy,
        ) => Code::FilesBadRequest,
        _ => return error.into(),
    };
    ApiError::new(code, error.to_string()).with("path", path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(uri: &str) -> Result<PathBuf, ApiError> {
        path_of(&uri.parse().unwrap(), "/files/")
    }

    #[test]
    fn a_path_is_decoded_once_and_is_bytes() {
        let it = |text: &str| path(&format!("/v1/vms/x/files/{text}")).unwrap();
        assert_eq!(
            it("%2Fhome%2Fbob%2Fa%20b%2Bc%25.txt"),
            Path::new("/home/bob/a b+c%.txt")
        );
        assert_eq!(it("a%2Fb"), Path::new("a/b"));
        assert_eq!(it("..%2Fx"), Path::new("../x"));
        assert_eq!(it("%252F"), Path::new("%2F"));
        assert_eq!(it("%ff"), Path::new(OsStr::from_bytes(b"\xff")));
        assert_eq!(it(""), Path::new("."));
    }

    #[test]
    fn a_nul_is_refused() {
        assert_eq!(
            path("/v1/vms/x/files/a%00b").unwrap_err().code(),
            Code::FilesBadRequest
        );
    }
}
