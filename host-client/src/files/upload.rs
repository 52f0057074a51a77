//! A call whose requests are a stream and whose answer is one message.

use std::future::Future;

use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status};

use crate::{Error, Vm};

/// Chunks on their way besides the HTTP/2 window: one being sent, and one ready.
const QUEUE: usize = 2;

/// The call under way. Dropping it before it is finished aborts it.
#[derive(Debug)]
pub(super) struct Upload<Q, A> {
    vm: Vm,
    requests: mpsc::Sender<Q>,
    /// `None`: it ended, which was told.
    call: Option<JoinHandle<Result<Response<A>, Status>>>,
}

impl<Q: Send + 'static, A: Send + 'static> Upload<Q, A> {
    /// Makes the call with a stream of what will be sent.
    pub(super) fn begin<F>(vm: Vm, call: impl FnOnce(ReceiverStream<Q>) -> F) -> Self
    where
        F: Future<Output = Result<Response<A>, Status>> + Send + 'static,
    {
        let (requests, queue) = mpsc::channel(QUEUE);
        let call = Some(tokio::spawn(call(ReceiverStream::new(queue))));
        Self { vm, requests, call }
    }

    /// Sends one more; fails as soon as the call ended.
    pub(super) async fn send(&mut self, request: Q) -> Result<(), Error> {
        // An ended call has told its error once, and must not be asked again.
        let call = self.call.as_mut().ok_or(Error::Lost(None))?;
        let ended = tokio::select! {
            biased;
            ended = &mut *call => ended,
            sent = self.requests.send(request) => match sent {
                Ok(()) => return Ok(()),
                Err(_) => call.await,
            },
        };
        self.call = None;
        self.ended(ended)?;
        Err(Error::Protocol(
            "a call was answered before all was sent".into(),
        ))
    }

    /// Sends the last one, and gives the answer.
    pub(super) async fn finish(mut self, last: Q) -> Result<A, Error> {
        self.send(last).await?;
        let answer = self.call.as_mut().ok_or(Error::Lost(None))?.await;
        self.call = None;
        self.ended(answer)
    }

    fn ended(
        &self,
        answer: Result<Result<Response<A>, Status>, tokio::task::JoinError>,
    ) -> Result<A, Error> {
        match answer {
            Ok(answer) => Ok(answer.map_err(|status| self.vm.error(status))?.into_inner()),
            // Only when the runtime is being shut down.
            Err(_) => Err(Error::Lost(None)),
        }
    }
}

impl<Q, A> Drop for Upload<Q, A> {
    fn drop(&mut self) {
        // Resets the stream, so that the guest sees no orderly end without the last message either.
        if let Some(call) = &self.call {
            call.abort();
        }
    }
}
