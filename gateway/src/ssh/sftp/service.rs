//! What each request does: one call of the agent's Files mostly, as the session's user.

use std::path::{Path, PathBuf};

use guestline_client::{DirEntry, Files, RenameMode};

use super::{
    super::access::Access,
    answer::Answer,
    attributes::Attributes,
    file::OpenFile,
    handles::{Handles, MAX_HANDLES},
    paths::{Paths, real},
    request::{OpenFlags, Request},
    status::{Code, Status},
};
use crate::sessions::Verb;

/// Entries of one answer: some 20 KiB.
const ENTRIES: usize = 128;

/// One SFTP session.
pub(super) struct Service<'a> {
    access: &'a Access,
    files: Files,
    paths: Paths,
    handles: Handles,
}

impl<'a> Service<'a> {
    pub(super) fn new(access: &'a Access, files: Files, paths: Paths) -> Self {
        Self {
            access,
            files,
            paths,
            handles: Handles::default(),
        }
    }

    /// Does it. Whatever fails is an answer too.
    pub(super) async fn answer(&mut self, request: Request) -> Answer {
        match self.perform(request).await {
            Ok(answer) => answer,
            Err(status) => Answer::Status(status),
        }
    }

    async fn perform(&mut self, request: Request) -> Result<Answer, Status> {
        match request {
            Request::Open(path, flags, attributes) => self.open(&path, flags, &attributes).await,
            Request::Close(handle) => done(self.handles.close(&handle).await),
            Request::Read(handle, offset, length) => {
                let file = self.handles.file(&handle).await?;
                let data = file.read(&self.files, offset, length).await?;
                match data.is_empty() && length > 0 {
                    true => Err(Status::eof()),
                    false => Ok(Answer::Data(data)),
                }
            }
            Request::Write(handle, offset, data) => {
                let file = self.handles.file(&handle).await?;
                done(file.write(&self.files, offset, data).await)
            }
            Request::HandleStat(handle) => {
                let file = self.handles.file(&handle).await?;
                file.flush().await?;
                attributes_of(self.files.stat(file.path()).await)
            }
            Request::HandleSet(handle, attributes) => {
                let file = self.handles.file(&handle).await?;
                file.flush().await?;
                let path = file.path().to_owned();
                self.set(&path, &attributes, false).await
            }
            Request::Sync(handle) => {
                let file = self.handles.file(&handle).await?;
                done(file.sync(&self.files).await)
            }
            Request::HandleSpace(handle) => {
                let path = self.handles.file(&handle).await?.path();
                Ok(Answer::Space(self.files.space(path).await?))
            }
            Request::ReadFolder(handle) => self.read_folder(&handle).await,
            Request::Limits => Ok(Answer::Limits {
                handles: MAX_HANDLES as u64,
            }),
            Request::Unknown => Err(Status::new(Code::Unsupported, "not supported")),
            request => {
                self.handles.settle().await;
                self.perform_on_path(request).await
            }
        }
    }

    async fn perform_on_path(&mut self, request: Request) -> Result<Answer, Status> {
        let files = self.files.clone();
        let place = |path: &PathBuf| self.paths.place(path);
        match &request {
            Request::Stat(path) => attributes_of(files.stat(place(path)).await),
            Request::LinkStat(path) => attributes_of(files.lstat(place(path)).await),
            Request::Set(path, attributes) => self.set(&place(path), attributes, false).await,
            Request::LinkSet(path, attributes) => self.set(&place(path), attributes, true).await,
            Request::OpenFolder(path) => self.open_folder(&place(path)).await,
            Request::Remove(path) => self.remove(&place(path), false).await,
            Request::RemoveFolder(path) => self.remove(&place(path), true).await,
            Request::MakeFolder(path, attributes) => {
                let path = place(path);
                let mode = attributes.permissions.map(|mode| mode & 0o777);
                let made = files.make_directory(&path, false, mode);
                self.noted("mkdir", &[&path], made).await
            }
            Request::RealPath(path) => {
                let path = real(&files, &place(path)).await?;
                Ok(Answer::Path(path.into()))
            }
            Request::ExpandPath(path) => {
                let path = real(&files, &self.paths.expand(path)?).await?;
                Ok(Answer::Path(path.into()))
            }
            Request::Rename(from, to) => self.rename(from, to, RenameMode::NoReplace).await,
            Request::Replace(from, to) => self.rename(from, to, RenameMode::Replace).await,
            Request::ReadLink(path) => {
                let target = files.read_link(place(path)).await?;
                Ok(Answer::Path(target.into()))
            }
            Request::Symlink(text, link) => {
                let link = place(link);
                let made = files.symlink(text, &link);
                self.noted("symlink", &[text, &link], made).await
            }
            Request::HardLink(existing, link) => {
                let (existing, link) = (place(existing), place(link));
                let made = files.hard_link(&existing, &link);
                self.noted("link", &[&existing, &link], made).await
            }
            Request::Space(path) => Ok(Answer::Space(files.space(place(path)).await?)),
            _ => Err(Status::new(Code::Unsupported, "not supported")),
        }
    }

    async fn open(
        &mut self,
        path: &Path,
        flags: OpenFlags,
        attributes: &Attributes,
    ) -> Result<Answer, Status> {
        self.handles.has_room()?;
        let path = self.paths.place(path);
        let verb = match flags.write {
            true => Verb::WriteFile,
            false => Verb::ReadFile,
        };
        let operation = self.access.note_part(verb).await.ok_or_else(ending)?;
        operation.begin(path.to_string_lossy());
        let opened = OpenFile::open(&self.files, path, flags, attributes, operation);
        let file = opened.await?;
        Ok(Answer::Handle(self.handles.add_file(file).await))
    }

    async fn open_folder(&mut self, path: &Path) -> Result<Answer, Status> {
        self.handles.has_room_for_folder()?;
        let folder = self.files.list(path, 1).await?;
        Ok(Answer::Handle(self.handles.add_folder(folder)))
    }

    async fn read_folder(&mut self, handle: &bytes::Bytes) -> Result<Answer, Status> {
        let folder = self.handles.folder(handle)?;
        let mut entries: Vec<DirEntry> = Vec::new();
        while entries.len() < ENTRIES {
            match folder.next().await? {
                Some(entry) => entries.push(entry),
                None => break,
            }
        }
        match entries.is_empty() {
            true => Err(Status::eof()),
            false => Ok(Answer::Entries(entries)),
        }
    }

    async fn set(
        &self,
        path: &Path,
        attributes: &Attributes,
        no_follow: bool,
    ) -> Result<Answer, Status> {
        if attributes.is_empty() {
            return done(Ok(()));
        }
        let changed = self
            .files
            .set_attributes(path, attributes.to_set(no_follow));
        let changed = async { changed.await.map(drop) };
        self.noted("setstat", &[path], changed).await
    }

    /// A folder and anything else are removed by different requests; the agent has one call for both.
    async fn remove(&self, path: &Path, folder: bool) -> Result<Answer, Status> {
        let is_folder = self.files.lstat(path).await?.is_dir();
        match (folder, is_folder) {
            (true, false) => return Err(Status::failure("not a directory")),
            (false, true) => return Err(Status::failure("is a directory")),
            _ => {}
        }
        let removed = self.files.remove(path, false, false);
        self.noted("remove", &[path], removed).await
    }

    async fn rename(&self, from: &Path, to: &Path, mode: RenameMode) -> Result<Answer, Status> {
        let (from, to) = (self.paths.place(from), self.paths.place(to));
        let renamed = self.files.rename(&from, &to, mode);
        self.noted("rename", &[&from, &to], renamed).await
    }

    /// A change of names or attributes, with its entry in the audit log.
    async fn noted(
        &self,
        what: &str,
        paths: &[&Path],
        change: impl Future<Output = Result<(), guestline_client::Error>>,
    ) -> Result<Answer, Status> {
        let operation = self
            .access
            .note_part(Verb::WriteFile)
            .await
            .ok_or_else(ending)?;
        let shown: Vec<_> = paths.iter().map(|path| path.to_string_lossy()).collect();
        operation.begin(format!("{what} {}", shown.join(" -> ")));
        let changed = change.await.map_err(Status::from);
        operation.set_result(changed.as_ref().map_or_else(Status::result, |()| "ok"));
        done(changed)
    }
}

fn attributes_of(
    found: Result<guestline_client::Metadata, guestline_client::Error>,
) -> Result<Answer, Status> {
    Ok(Answer::Attributes(Box::new(found?)))
}

fn done(result: Result<(), Status>) -> Result<Answer, Status> {
    result.map(|()| Answer::Status(Status::ok()))
}

fn ending() -> Status {
    Status::failure("the gateway is ending")
}
