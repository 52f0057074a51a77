//! The two streams of one Run or Attach: what the client says goes to the program's controls, what the program does is
//! answered. Dropping the answers is how the program's owner learns that the client vanished.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use guestline_proto::v1::{AttachRequest, AttachResponse, ErrorReason, RunRequest, RunResponse};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::Stream;
use tonic::{Status, Streaming};

use super::{answer, request};
use crate::{
    processes::{AttachEvent, Attachment, Client, Controls, Event, Input},
    rpc::status::Failure,
    switches,
};

/// Events of up to 64 KiB that wait for an attached client; the rings hold the others.
const ATTACH_QUEUE: usize = 2;

/// Events as answers, the exit last; or the error of a request that broke the protocol.
#[derive(Debug)]
pub(crate) struct Answers<E, R> {
    first: Option<R>,
    /// `None`: the last answer was given.
    events: Option<mpsc::Receiver<E>>,
    answer: fn(E) -> R,
    is_last: fn(&E) -> bool,
    /// `None`: the client's requests are at their end.
    fault: Option<oneshot::Receiver<Status>>,
}

pub(crate) type RunAnswers = Answers<Event, RunResponse>;
pub(crate) type AttachAnswers = Answers<AttachEvent, AttachResponse>;

impl RunAnswers {
    /// Starts to pass the requests on; that task ends with the requests, or with the program.
    pub(super) fn run(client: Client, requests: Streaming<RunRequest>) -> Self {
        let end = Some(Input::CloseStdin);
        Self {
            first: Some(answer::started(client.id, client.pid)),
            events: Some(client.events),
            answer: answer::event,
            is_last: |event| matches!(event, Event::Exited(_)),
            fault: Some(listen(requests, client.input, request::run_input, end)),
        }
    }
}

impl AttachAnswers {
    /// Like [`RunAnswers::run`], for one of many clients: its end means nothing to the program.
    pub(super) fn attach(
        mut attachment: Attachment,
        controls: Controls,
        requests: Streaming<AttachRequest>,
    ) -> Self {
        switches::point("attach: begun");
        let (sender, events) = mpsc::channel(ATTACH_QUEUE);
        tokio::spawn(async move {
            // Room first: what is taken from the rings has a place to go.
            while let Ok(place) = sender.reserve().await {
                let event = tokio::select! {
                    event = attachment.next() => event,
                    () = sender.closed() => break,
                };
                match event {
                    Some(event) => {
                        switches::point("attach: heard");
                        place.send(event);
                    }
                    None => break,
                }
            }
        });
        Self {
            first: None,
            events: Some(events),
            answer: answer::attach_event,
            is_last: |event| matches!(event, AttachEvent::Exited(_)),
            fault: Some(listen(requests, controls, request::attach_input, None)),
        }
    }
}

impl<E, R> Answers<E, R> {
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

impl<E, R: Unpin> Stream for Answers<E, R> {
    type Item = Result<R, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        if let Some(status) = self.poll_fault(context) {
            self.events = None;
            return Poll::Ready(Some(Err(status)));
        }
        let Some(events) = &mut self.events else {
            return Poll::Ready(None);
        };
        let event = std::task::ready!(events.poll_recv(context));
        if event.as_ref().is_none_or(self.is_last) {
            self.events = None;
            self.fault = None;
        }
        Poll::Ready(Some(event.map(self.answer).ok_or_else(|| lost().into())))
    }
}

/// Never 0 for an exit that nobody saw.
fn lost() -> Failure {
    let text = "how the program ended is not known";
    Failure::refused(ErrorReason::Errno, "wait", text)
}

/// Passes requests on in a task of its own; the receiver hears of one that breaks the protocol.
fn listen<M: Send + 'static>(
    requests: Streaming<M>,
    controls: Controls,
    input: fn(M) -> Result<Input, Failure>,
    end: Option<Input>,
) -> oneshot::Receiver<Status> {
    let (mut sender, fault) = oneshot::channel();
    tokio::spawn(async move {
        if let Err(status) = pass_on(requests, controls, input, end, &mut sender).await {
            // Answers that are gone already need no error.
            let _ = sender.send(status);
        }
    });
    fault
}

/// Until the client has no more to say, or the program nothing more to hear. What waits for the program to take it goes when
/// `answers` says that the client has vanished: else a task would hold it for each of them. Only the `end` of a client that
/// half-closed, if that means anything (a Run's is CloseStdin), waits for as long as the program: it was said, and is small.
async fn pass_on<M>(
    mut requests: Streaming<M>,
    controls: Controls,
    input: fn(M) -> Result<Input, Failure>,
    end: Option<Input>,
    answers: &mut oneshot::Sender<Status>,
) -> Result<(), Status> {
    loop {
        let request = tokio::select! {
            () = controls.deaf() => return Ok(()),
            request = requests.message() => request?,
        };
        let Some(request) = request else {
            if let Some(end) = end {
                let _ = controls.send(end).await;
            }
            return Ok(());
        };
        let taken = tokio::select! {
            biased;
            taken = controls.send(input(request)?) => taken,
            () = answers.closed() => return Ok(()),
        };
        if taken.is_err() {
            return Ok(());
        }
    }
}
