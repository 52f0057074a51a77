//! One open file. SFTP reads and writes at offsets, one packet each; the agent streams. A client that goes through a file
//! from one end to the other, as all do, is served by one stream; another offset begins a new one.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use guestline_client::{FileReader, FileWriter, Files, WriteOptions};

use super::{
    answer::MAX_DATA,
    attributes::Attributes,
    request::OpenFlags,
    status::{Code, Status},
};
use crate::audit::Operation;

/// Where a file ended, it still ends for this long: a client asks several times for what is beyond.
const END_HOLDS: Duration = Duration::from_secs(1);

/// A handle's file.
#[derive(Debug)]
pub(super) struct OpenFile {
    path: PathBuf,
    flags: OpenFlags,
    reading: Option<Reading>,
    writing: Option<Writing>,
    end: Option<(u64, Instant)>,
    /// What went wrong with bytes that were answered already. Told once.
    failed: Option<Status>,
    operation: Operation,
}

#[derive(Debug)]
struct Reading {
    reader: FileReader,
    at: u64,
    rest: Bytes,
}

#[derive(Debug)]
struct Writing {
    writer: FileWriter,
    at: u64,
}

impl OpenFile {
    /// Fails as open(2) would.
    pub(super) async fn open(
        files: &Files,
        path: PathBuf,
        flags: OpenFlags,
        attributes: &Attributes,
        operation: Operation,
    ) -> Result<Self, Status> {
        let mut file = Self {
            path,
            flags,
            reading: None,
            writing: None,
            end: None,
            failed: None,
            operation,
        };
        let opened = file.begin(files, attributes).await;
        if let Err(status) = &opened {
            file.operation.set_result(status.result());
        }
        opened.map(|()| file)
    }

    async fn begin(&mut self, files: &Files, attributes: &Attributes) -> Result<(), Status> {
        let flags = self.flags;
        if !flags.write {
            if !flags.read {
                let text = "a file is opened for reading, writing, or both";
                return Err(Status::new(Code::BadMessage, text));
            }
            return self.read_from(files, 0).await;
        }
        if !flags.create {
            files.stat(&self.path).await?;
        }
        let options = match (flags.create && flags.exclusive, flags.truncate) {
            (true, _) => WriteOptions::create_new(),
            (false, true) => WriteOptions::truncate(),
            (false, false) => WriteOptions::at(0),
        };
        let options = match attributes.permissions {
            Some(mode) => options.permissions(mode & 0o777),
            None => options,
        };
        // Without a byte: the file is there, and it is this user's to write.
        let writer = files.write_with(&self.path, options).await?;
        writer.finish().await?;
        Ok(())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it holds something of the guest's connection.
    pub(super) fn has_stream(&self) -> bool {
        self.reading.is_some() || self.writing.is_some()
    }

    /// As many bytes as there are, up to `length`; none at the end.
    pub(super) async fn read(
        &mut self,
        files: &Files,
        offset: u64,
        length: u32,
    ) -> Result<Bytes, Status> {
        if !self.flags.read {
            return Err(Status::failure("the file was not opened for reading"));
        }
        if let Some((end, since)) = self.end
            && offset >= end
            && since.elapsed() < END_HOLDS
        {
            return Ok(Bytes::new());
        }
        self.flush().await?;
        if self.reading.as_ref().is_none_or(|it| it.at != offset) {
            self.read_from(files, offset).await?;
        }
        let Some(reading) = &mut self.reading else {
            return Ok(Bytes::new());
        };
        let data = reading.take(length.min(MAX_DATA) as usize).await;
        let data = match data {
            Ok(data) => data,
            Err(status) => {
                self.reading = None;
                return Err(status);
            }
        };
        if (data.len() as u64) < u64::from(length.min(MAX_DATA)) {
            self.end = Some((offset + data.len() as u64, Instant::now()));
            self.reading = None;
        }
        self.operation.add_bytes_out(data.len());
        Ok(data)
    }

    async fn read_from(&mut self, files: &Files, offset: u64) -> Result<(), Status> {
        let reader = files.open_range(&self.path, offset, None).await?;
        self.reading = Some(Reading {
            reader,
            at: offset,
            rest: Bytes::new(),
        });
        Ok(())
    }

    /// Sends the bytes on their way. That the guest could not write them is told by a later request on this file.
    pub(super) async fn write(
        &mut self,
        files: &Files,
        offset: u64,
        data: Bytes,
    ) -> Result<(), Status> {
        if !self.flags.write {
            return Err(Status::failure("the file was not opened for writing"));
        }
        self.take_failure()?;
        self.end = None;
        self.reading = None;
        let goes_on = |it: &Writing| self.flags.append || it.at == offset;
        if !self.writing.as_ref().is_some_and(goes_on) {
            self.flush().await?;
            let options = match self.flags.append {
                true => WriteOptions::append(),
                false => WriteOptions::at(offset),
            };
            let writer = files.write_with(&self.path, options).await?;
            self.writing = Some(Writing { writer, at: offset });
        }
        let Some(writing) = &mut self.writing else {
            return Ok(());
        };
        let length = data.len();
        if let Err(error) = writing.writer.write(data).await {
            self.writing = None;
            return Err(error.into());
        }
        writing.at += length as u64;
        self.operation.add_bytes_in(length);
        Ok(())
    }

    /// Waits until the guest has written all.
    pub(super) async fn flush(&mut self) -> Result<(), Status> {
        self.take_failure()?;
        if let Some(writing) = self.writing.take() {
            writing.writer.finish().await?;
        }
        Ok(())
    }

    /// The same, for another request than this file's: it is told later what went wrong.
    pub(super) async fn settle(&mut self) {
        if let Err(status) = self.flush().await {
            self.failed = Some(status);
        }
    }

    /// Gives back what it holds of the guest's connection; the next request begins anew.
    pub(super) async fn park(&mut self) {
        self.reading = None;
        self.settle().await;
    }

    /// fsync(2).
    pub(super) async fn sync(&mut self, files: &Files) -> Result<(), Status> {
        self.flush().await?;
        let options = WriteOptions::at(0).sync(true);
        let writer = files.write_with(&self.path, options).await?;
        writer.finish().await?;
        Ok(())
    }

    /// Its end, and how it went.
    pub(super) async fn close(mut self) -> Result<(), Status> {
        let flushed = self.flush().await;
        let result = flushed.as_ref().map_or_else(Status::result, |()| "ok");
        self.operation.set_result(result);
        flushed
    }

    fn take_failure(&mut self) -> Result<(), Status> {
        match self.failed.take() {
            Some(status) => Err(status),
            None => Ok(()),
        }
    }
}

impl Reading {
    /// Less than `length` at the end alone: a client takes a short answer for a slow server.
    async fn take(&mut self, length: usize) -> Result<Bytes, Status> {
        if self.rest.is_empty() {
            self.fetch().await?;
        }
        let first = self.rest.split_to(length.min(self.rest.len()));
        self.at += first.len() as u64;
        if first.len() == length || first.is_empty() {
            return Ok(first);
        }
        let mut data = BytesMut::from(first);
        while data.len() < length {
            if self.rest.is_empty() && !self.fetch().await? {
                break;
            }
            let more = self
                .rest
                .split_to((length - data.len()).min(self.rest.len()));
            self.at += more.len() as u64;
            data.extend_from_slice(&more);
        }
        Ok(data.freeze())
    }

    async fn fetch(&mut self) -> Result<bool, Status> {
        while let Some(chunk) = self.reader.chunk().await? {
            if !chunk.is_empty() {
                self.rest = chunk;
                return Ok(true);
            }
        }
        Ok(false)
    }
}
