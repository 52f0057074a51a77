//! The two streams of one Run. Dropping the answers is how the program's owner learns that the client vanished.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use guestline_proto::v1::{ErrorReason, RunRequest, RunResponse, Started, run_response::Message};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::Stream;
use tonic::{Status, Streaming};

use super::{answer, request};
use crate::{
    processes::{Client, Event, Input},
    rpc::status::Failure,
};

/// `started`, outputs, `exited`; or the error of a request that broke the protocol.
#[derive(Debug)]
pub(crate) struct RunAnswers {
    started: Option<Started>,
    /// `None`: the last answer was given.
    events: Option<mpsc::Receiver<Event>>,
    /// `None`: the client's requests are at their end.
    fault: Option<oneshot::Receiver<Status>>,
}

impl RunAnswers {
    /// Starts to pass the requests on; that task ends with the requests, or with the program.
    pub(super) fn new(client: Client, requests: Streaming<RunRequest>) -> Self {
        let (sender, fault) = oneshot::channel();
        tokio::spawn(async move {
            if let Err(status) = pass_on(requests, client.input).await {
                // Answers that are gone already need no error.
                let _ = sender.send(status);
            }
        });
        Self {
            started: Some(Started {
                process_id: client.id.0,
                pid: client.pid,
            }),
            events: Some(client.events),
            fault: Some(fault),
        }
    }

    fn poll_fault(&mut self, context: &mut Context<'_>) -> Option<Status> {
        let fault = Pin::new(self.fault.as_mut()?);
        match fault.poll(context) {
            Poll::Pending => None,
            Poll::Ready(result) => {
                self.fault = None;
                result.ok()
            }
        }
    }
}

impl Stream for RunAnswers {
    type Item = Result<RunResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(started) = self.started.take() {
            let message = Some(Message::Started(started));
            return Poll::Ready(Some(Ok(RunResponse { message })));
        }
        if let Some(status) = self.poll_fault(context) {
            self.events = None;
            return Poll::Ready(Some(Err(status)));
        }
        let Some(events) = &mut self.events else {
            return Poll::Ready(None);
        };
        let event = std::task::ready!(events.poll_recv(context));
        if !matches!(event, Some(Event::Output(..))) {
            self.events = None;
            self.fault = None;
        }
        Poll::Ready(Some(event.map(answer::event).ok_or_else(|| lost().into())))
    }
}

/// Never 0 for an exit that nobody saw.
fn lost() -> Failure {
    let text = "how the program ended is not known";
    Failure::refused(ErrorReason::Errno, "wait", text)
}

/// Until the client has no more to say, or the program nothing more to hear.
async fn pass_on(
    mut requests: Streaming<RunRequest>,
    input: mpsc::Sender<Input>,
) -> Result<(), Status> {
    loop {
        let request = tokio::select! {
            () = input.closed() => return Ok(()),
            request = requests.message() => request?,
        };
        let message = match &request {
            Some(_) => request::input(request.and_then(|request| request.message))?,
            // A half-close.
            None => {
                let _ = input.send(Input::CloseStdin).await;
                return Ok(());
            }
        };
        if input.send(message).await.is_err() {
            return Ok(());
        }
    }
}
