//! The Files service: each handler turns its request into one call of the domain `files`, made on a blocking thread
//! where it may have to wait.

mod convert;
mod failure;
mod feed;
#[cfg(fuzzing)]
pub(super) mod fuzzing;
mod pull;
mod push;
mod upload;
mod watching;

use std::path::PathBuf;

use guestline_proto::v1::{
    ChecksumRequest, ChecksumResponse, CopyRequest, CopyResponse, ExtendedAttribute,
    GetExtendedAttributesRequest, GetExtendedAttributesResponse, LinkRequest, LinkResponse,
    ListRequest, ListResponse, MakeDirectoryRequest, MakeDirectoryResponse, PullRequest,
    PullResponse, PushRequest, PushResponse, ReadLinkRequest, ReadLinkResponse, ReadRequest,
    ReadResponse, RemoveRequest, RemoveResponse, RenameRequest, RenameResponse,
    SetAttributesRequest, SetAttributesResponse, SetExtendedAttributesRequest,
    SetExtendedAttributesResponse, SpaceRequest, SpaceResponse, StatRequest, StatResponse,
    WatchRequest, WriteRequest, WriteResponse, files_server::Files, read_response::Message,
};
use tonic::{Request, Response, Status, Streaming};

use self::{
    convert::{Home, Page, bytes_of, metadata_of, space_of},
    watching::WatchStream,
};
use super::{
    blocking::{
        BlockingStream, Deadline, Sink, blocking, blocking_stream, blocking_while_wanted,
        chunk_size, ready_stream,
    },
    bulk::{self, Silent, sends_data, takes_data},
    calls::{answers, calls, unary},
    status::Failure,
};
use crate::files::{self, AtOnce, archive::PackOptions};

/// Serves files as the user that this process is.
#[derive(Debug)]
pub(crate) struct FilesService {
    home: Home,
    at_once: AtOnce,
}

impl FilesService {
    /// Relative paths start at that directory.
    pub(crate) fn new(home: PathBuf) -> Self {
        Self {
            home: Home(home),
            at_once: AtOnce::default(),
        }
    }

    #[allow(clippy::result_large_err, reason = "the type is tonic's")]
    fn read_file(
        &self,
        request: Request<ReadRequest>,
    ) -> Result<BlockingStream<ReadResponse>, Status> {
        let deadline = Deadline::of(&request);
        let (path, range) = self.home.read(request.into_inner())?;
        if let Some((metadata, data)) = self.at_once.read(&path, range) {
            let messages = [Message::Opened(metadata_of(metadata)), Message::Data(data)];
            return Ok(ready_stream(messages.map(|message| ReadResponse {
                message: Some(message),
            })));
        }
        blocking_stream(deadline, move |sink| {
            send_file(files::Reader::open(&path, range)?, sink)
        })
    }
}

calls! {
    FilesService, "guestline.v1.Files",
    sends_data "Read" => read,
    takes_data "Write" => write,
    unary "Stat" => stat,
    answers "List" => list,
    unary "MakeDirectory" => make_directory,
    unary "Remove" => remove,
    unary "Rename" => rename,
    unary "Copy" => copy,
    unary "Link" => link,
    unary "ReadLink" => read_link,
    unary "SetAttributes" => set_attributes,
    unary "GetExtendedAttributes" => get_extended_attributes,
    unary "SetExtendedAttributes" => set_extended_attributes,
    unary "Checksum" => checksum,
    answers "Watch" => watch,
    sends_data "Pull" => pull,
    takes_data "Push" => push,
    unary "Space" => space,
}

#[tonic::async_trait]
impl Files for FilesService {
    type ReadStream = Silent<ReadResponse>;
    type ListStream = BlockingStream<ListResponse>;
    type WatchStream = WatchStream;
    type PullStream = Silent<PullResponse>;

    async fn read(
        &self,
        request: Request<ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        Ok(bulk::answer(self.read_file(request)?))
    }

    async fn write(
        &self,
        request: Request<Streaming<WriteRequest>>,
    ) -> Result<Response<WriteResponse>, Status> {
        let deadline = Deadline::of(&request);
        let written = upload::receive(&self.home, deadline, bulk::messages(request)).await?;
        Ok(Response::new(WriteResponse {
            written: written.bytes,
            metadata: Some(metadata_of(written.metadata)),
        }))
    }

    async fn stat(&self, request: Request<StatRequest>) -> Result<Response<StatResponse>, Status> {
        let deadline = Deadline::of(&request);
        let request = request.into_inner();
        let path = self.home.path("path", &request.path)?;
        let follow = !request.no_follow;
        let metadata = match self.at_once.stat(&path, follow) {
            Some(metadata) => metadata,
            None => blocking(deadline, move || Ok(files::stat(&path, follow)?)).await?,
        };
        Ok(Response::new(StatResponse {
            metadata: Some(metadata_of(metadata)),
        }))
    }

    async fn list(
        &self,
        request: Request<ListRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let deadline = Deadline::of(&request);
        let listing = self.home.listing(request.into_inner())?;
        let stream = blocking_stream(deadline, move |sink| send_listing(&listing, sink))?;
        Ok(Response::new(stream))
    }

    async fn make_directory(
        &self,
        request: Request<MakeDirectoryRequest>,
    ) -> Result<Response<MakeDirectoryResponse>, Status> {
        let deadline = Deadline::of(&request);
        let request = request.into_inner();
        let path = self.home.path("path", &request.path)?;
        let permissions = convert::mode("permissions", request.permissions)?;
        blocking(deadline, move || {
            Ok(files::make_directory(&path, request.parents, permissions)?)
        })
        .await?;
        Ok(Response::new(MakeDirectoryResponse {}))
    }

    async fn remove(
        &self,
        request: Request<RemoveRequest>,
    ) -> Result<Response<RemoveResponse>, Status> {
        let deadline = Deadline::of(&request);
        let request = request.into_inner();
        let path = self.home.path("path", &request.path)?;
        blocking(deadline, move || {
            Ok(files::remove(&path, request.recursive, request.missing_ok)?)
        })
        .await?;
        Ok(Response::new(RemoveResponse {}))
    }

    async fn rename(
        &self,
        request: Request<RenameRequest>,
    ) -> Result<Response<RenameResponse>, Status> {
        let deadline = Deadline::of(&request);
        let request = request.into_inner();
        let from = self.home.path("from", &request.from)?;
        let to = self.home.path("to", &request.to)?;
        let mode = convert::rename_mode(request.mode)?;
        blocking(deadline, move || Ok(files::rename(&from, &to, mode)?)).await?;
        Ok(Response::new(RenameResponse {}))
    }

    async fn copy(&self, request: Request<CopyRequest>) -> Result<Response<CopyResponse>, Status> {
        let deadline = Deadline::of(&request);
        let request = request.into_inner();
        let from = self.home.path("from", &request.from)?;
        let to = self.home.path("to", &request.to)?;
        let copy = files::Copy {
            recursive: request.recursive,
            overwrite: request.overwrite,
            preserve: request.preserve,
            files: 0,
            bytes: 0,
        };
        let done = blocking(deadline, move || Ok(files::copy(&from, &to, copy)?)).await?;
        Ok(Response::new(CopyResponse {
            files: done.files,
            bytes: done.bytes,
        }))
    }

    async fn link(&self, request: Request<LinkRequest>) -> Result<Response<LinkResponse>, Status> {
        let deadline = Deadline::of(&request);
        let request = request.into_inner();
        let path = self.home.path("path", &request.path)?;
        if request.symbolic {
            let text = convert::bare_path("target", &request.target)?.to_owned();
            blocking(deadline, move || Ok(files::symbolic_link(&text, &path)?)).await?;
        } else {
            let existing = self.home.path("target", &request.target)?;
            blocking(deadline, move || Ok(files::hard_link(&existing, &path)?)).await?;
        }
        Ok(Response::new(LinkResponse {}))
    }

    async fn read_link(
        &self,
        request: Request<ReadLinkRequest>,
    ) -> Result<Response<ReadLinkResponse>, Status> {
        let deadline = Deadline::of(&request);
        let path = self.home.path("path", &request.into_inner().path)?;
        let target = blocking(deadline, move || Ok(files::read_link(&path)?)).await?;
        Ok(Response::new(ReadLinkResponse {
            target: bytes_of(target),
        }))
    }

    async fn set_attributes(
        &self,
        request: Request<SetAttributesRequest>,
    ) -> Result<Response<SetAttributesResponse>, Status> {
        let deadline = Deadline::of(&request);
        let request = request.into_inner();
        let path = self.home.path("path", &request.path)?;
        let changes = convert::changes(&request)?;
        let follow = !request.no_follow;
        let metadata = blocking(deadline, move || {
            Ok(files::set_attributes(&path, &changes, follow)?)
        })
        .await?;
        Ok(Response::new(SetAttributesResponse {
            metadata: Some(metadata_of(metadata)),
        }))
    }

    async fn space(
        &self,
        request: Request<SpaceRequest>,
    ) -> Result<Response<SpaceResponse>, Status> {
        let deadline = Deadline::of(&request);
        let path = self.home.path("path", &request.into_inner().path)?;
        let space = blocking(deadline, move || Ok(files::space(&path)?)).await?;
        Ok(Response::new(space_of(&space)))
    }

    async fn get_extended_attributes(
        &self,
        request: Request<GetExtendedAttributesRequest>,
    ) -> Result<Response<GetExtendedAttributesResponse>, Status> {
        let deadline = Deadline::of(&request);
        let request = request.into_inner();
        let path = self.home.path("path", &request.path)?;
        let names = convert::attribute_names("names", &request.names)?;
        let follow = !request.no_follow;
        let get = move || Ok(files::extended_attributes(&path, names, follow)?);
        let attributes = blocking(deadline, get).await?.into_iter();
        let attributes = attributes.map(|(name, value)| ExtendedAttribute {
            name: bytes_of(name),
            value: value.into(),
        });
        Ok(Response::new(GetExtendedAttributesResponse {
            attributes: attributes.collect(),
        }))
    }

    async fn set_extended_attributes(
        &self,
        request: Request<SetExtendedAttributesRequest>,
    ) -> Result<Response<SetExtendedAttributesResponse>, Status> {
        let deadline = Deadline::of(&request);
        let request = request.into_inner();
        let path = self.home.path("path", &request.path)?;
        let set = convert::attributes_to_set(&request.set)?;
        let remove = convert::attribute_names("remove", &request.remove)?;
        let follow = !request.no_follow;
        blocking(deadline, move || {
            Ok(files::set_extended_attributes(
                &path, &set, &remove, follow,
            )?)
        })
        .await?;
        Ok(Response::new(SetExtendedAttributesResponse {}))
    }

    async fn checksum(
        &self,
        request: Request<ChecksumRequest>,
    ) -> Result<Response<ChecksumResponse>, Status> {
        let deadline = Deadline::of(&request);
        let (path, range, algorithm) = self.home.checksum(request.into_inner())?;
        let checksum = blocking_while_wanted(deadline, move |wanted| {
            Ok(files::checksum(&path, range, algorithm, || wanted.still())?)
        });
        // It gives up only when this future is gone.
        let checksum = checksum.await?.unwrap_or_default();
        Ok(Response::new(ChecksumResponse {
            digest: checksum.digest.into(),
            size: checksum.size,
        }))
    }

    async fn watch(
        &self,
        request: Request<WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let deadline = Deadline::of(&request);
        let request = request.into_inner();
        let watch = files::Watch {
            path: self.home.path("path", &request.path)?,
            recursive: request.recursive,
        };
        Ok(Response::new(watching::begin(deadline, watch)?))
    }

    async fn pull(
        &self,
        request: Request<PullRequest>,
    ) -> Result<Response<Self::PullStream>, Status> {
        let deadline = Deadline::of(&request);
        let request = request.into_inner();
        let path = self.home.path("path", &request.path)?;
        let options = PackOptions {
            one_file_system: request.one_file_system,
        };
        let send = move |sink: &_| pull::send_tree(&path, options, sink);
        Ok(bulk::answer(blocking_stream(deadline, send)?))
    }

    async fn push(
        &self,
        request: Request<Streaming<PushRequest>>,
    ) -> Result<Response<PushResponse>, Status> {
        let deadline = Deadline::of(&request);
        let pushed = push::receive(&self.home, deadline, bulk::messages(request)).await?;
        Ok(Response::new(pushed))
    }
}

fn send_file(mut reader: files::Reader, sink: &Sink<ReadResponse>) -> Result<(), Failure> {
    let opened = Message::Opened(metadata_of(reader.metadata().clone()));
    let mut message = Some(opened);
    while message.is_some() {
        if sink.send(ReadResponse { message }).is_err() {
            break;
        }
        message = reader.next_chunk(chunk_size())?.map(Message::Data);
    }
    Ok(())
}

fn send_listing(listing: &files::Listing, sink: &Sink<ListResponse>) -> Result<(), Failure> {
    let mut page = Page::default();
    let mut gone = false;
    files::list(listing, |entry| {
        if let Some(full) = page.push(entry) {
            gone = sink.send(full).is_err();
        }
        !gone
    })?;
    if !gone && let Some(rest) = page.take() {
        // The last one: nothing is left to stop.
        let _ = sink.send(rest);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
