//! One client's connection, from its first byte to its end, and the reasons why it ends.
//!
//! ```text
//! accepted ─► key exchange ─► login ─► channels, each a task of its own ─► ended
//!    └─ grace time ─────────────┘        ├─ revoked: within 5 s, by the lease
//!                                        ├─ no channel for a while
//!                                        └─ the gateway ends
//! ```

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use russh::server;
use tokio::{net::TcpStream, sync::watch, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Parts, Patience,
    access::{Access, Ending},
    handler::Handler,
    limits::Place,
    login::Logins,
    notices::Notices,
    socket::Socket,
};
use crate::{
    audit::{Actor, Operation},
    sessions::{Cut, Lease, Principal, Session},
};

/// Of one connection, forwarded streams too. Each may hold some MiB.
const MAX_CHANNELS: usize = 128;

/// What too many connections with one token or key are called in the audit log and in the metrics.
const TOO_MANY: &str = "SSH_TOO_MANY_OF_CREDENTIAL";

/// What a client sent before it closed a channel is delivered within this time; a program that does not take it is hung up.
const AFTER_CLOSE: Duration = Duration::from_secs(10);

/// A client that is told to go has this long to hear it.
const FAREWELL: Duration = Duration::from_secs(1);

/// What the callbacks and the channels of one connection share.
pub(super) struct Connection {
    parts: Parts,
    peer: SocketAddr,
    place: Mutex<Place>,
    ending: Ending,
    logged_in: OnceLock<LoggedIn>,
    /// Whether somebody has logged in, and how many channels there are.
    state: watch::Sender<(bool, usize)>,
    tasks: TaskTracker,
    notices: Arc<Notices>,
    has_failed: AtomicBool,
}

struct LoggedIn {
    access: Arc<Access>,
    lease: Lease,
    operation: Operation,
}

/// Serves one client to its end.
pub(super) async fn serve(
    parts: Parts,
    config: Arc<server::Config>,
    patience: Patience,
    stream: TcpStream,
    peer: SocketAddr,
    place: Place,
    stop: CancellationToken,
) {
    let cut = CancellationToken::new();
    // Keystrokes do not wait for each other; a client that is gone already is noticed later.
    let _ = stream.set_nodelay(true);
    let socket = Socket::new(stream, &cut);
    let connection = Arc::new(Connection::new(parts.clone(), peer, place));
    let handler = Handler::new(connection.clone(), Logins::new(parts, peer));
    let deadline = Instant::now() + patience.login;
    let begun =
        tokio::time::timeout_at(deadline.into(), server::run_stream(config, socket, handler));
    let mut running = match begun.await {
        Ok(Ok(running)) => running,
        Ok(Err(_)) => return,
        Err(_) => return connection.note_failed_login(),
    };
    let handle = running.handle();
    let (reason, farewell) = tokio::select! {
        _ = &mut running => ("abandoned", None),
        () = connection.overstays(deadline) => {
            connection.note_failure();
            ("timeout", Some("nobody logged in in time"))
        }
        () = connection.revoked() => ("revoked", Some("access was revoked")),
        () = connection.idles(patience.idle) => ("idle", Some("nothing was done for too long")),
        () = connection.drained(stop, patience.drain) => ("drained", Some("the gateway ends")),
    };
    connection.end(reason).await;
    if let Some(text) = farewell {
        let reason = russh::Disconnect::ByApplication;
        let told = handle.disconnect(reason, text.into(), String::new());
        if let Ok(Ok(())) = timeout(FAREWELL, told).await {
            let _ = timeout(FAREWELL, &mut running).await;
        }
    }
    cut.cancel();
}

impl Connection {
    fn new(parts: Parts, peer: SocketAddr, place: Place) -> Self {
        Self {
            parts,
            peer,
            place: Mutex::new(place),
            ending: Ending::default(),
            logged_in: OnceLock::new(),
            state: watch::Sender::new((false, 0)),
            tasks: TaskTracker::new(),
            notices: Arc::default(),
            has_failed: AtomicBool::new(false),
        }
    }

    /// Takes the login, unless its credential has too many connections.
    pub(super) async fn log_in(&self, session: Session) -> bool {
        let Some(vm) = session.vm().map(|vm| vm.id.clone()) else {
            return false;
        };
        let actor = Actor::of(&session, self.peer.ip().to_string());
        let credential = match session.principal() {
            Principal::Admin { .. } => None,
            Principal::Identity { credential, .. } => Some(credential),
        };
        if !self.with_place(|place| place.log_in(credential)) {
            self.parts.metrics.refused(TOO_MANY);
            self.parts.audit.refused(actor, TOO_MANY).await;
            return false;
        }
        let Some(operation) = self.parts.audit.operation(actor).await else {
            return false;
        };
        operation.begin_unnamed();
        let (parts, ending) = (self.parts.clone(), self.ending.clone());
        let logged_in = LoggedIn {
            access: Arc::new(Access::new(parts, &session, vm, self.peer, ending)),
            lease: self.parts.live.lease(&session),
            operation,
        };
        let is_first = self.logged_in.set(logged_in).is_ok();
        self.state.send_modify(|state| state.0 = true);
        is_first
    }

    /// A wrong secret, or too long a wait for one. It counts if nobody logs in after it.
    pub(super) fn note_failure(&self) {
        self.has_failed.store(true, Ordering::Relaxed);
    }

    pub(super) fn notices(&self) -> &Arc<Notices> {
        &self.notices
    }

    /// A task for a channel, `closed` by the client. `false`: there are too many.
    pub(super) fn open<F>(
        &self,
        closed: CancellationToken,
        serve: impl FnOnce(Arc<Access>) -> F,
    ) -> bool
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(logged_in) = self.logged_in.get() else {
            return false;
        };
        if self.state.borrow().1 >= MAX_CHANNELS {
            return false;
        }
        let counted = Counted::new(self.state.clone());
        let served = serve(logged_in.access.clone());
        let ending = self.ending.clone();
        self.tasks.spawn(async move {
            let _counted = counted;
            tokio::select! {
                () = ending.ended() => {}
                () = overdue(closed) => {}
                () = served => {}
            }
        });
        true
    }

    async fn overstays(&self, deadline: Instant) {
        let mut state = self.state.subscribe();
        let logged_in = state.wait_for(|(is_logged_in, _)| *is_logged_in);
        if tokio::time::timeout_at(deadline.into(), logged_in)
            .await
            .is_ok()
        {
            std::future::pending().await
        }
    }

    async fn revoked(&self) {
        let mut state = self.state.subscribe();
        let _ = state.wait_for(|(is_logged_in, _)| *is_logged_in).await;
        match self.logged_in.get() {
            // That the gateway ends, it tells by itself, and waits.
            Some(logged_in) if logged_in.lease.cut().await == Cut::Revoked => {}
            _ => std::future::pending().await,
        }
    }

    /// Nobody has had a channel for this long.
    async fn idles(&self, limit: Duration) {
        let mut state = self.state.subscribe();
        loop {
            let idle = state.wait_for(|(is_logged_in, channels)| *is_logged_in && *channels == 0);
            let _ = idle.await;
            let busy = state.wait_for(|(_, channels)| *channels > 0);
            if timeout(limit, busy).await.is_err() {
                return;
            }
        }
    }

    /// The gateway ends, and this connection has nothing under way any more, or had its time.
    async fn drained(&self, stop: CancellationToken, drain: Duration) {
        stop.cancelled().await;
        let mut state = self.state.subscribe();
        let idle = state.wait_for(|(_, channels)| *channels == 0);
        if timeout(drain, idle).await.is_ok() {
            // Whoever reads how the last command ended leaves by itself, and is not told of another failure.
            tokio::time::sleep(FAREWELL).await;
        }
    }

    /// Ends the channels, and tells the audit log why.
    async fn end(&self, reason: &'static str) {
        self.ending.end(reason);
        self.tasks.close();
        self.tasks.wait().await;
        match self.logged_in.get() {
            Some(logged_in) => {
                let result = if reason == "abandoned" { "ok" } else { reason };
                logged_in.operation.set_result(result);
            }
            None if self.has_failed.load(Ordering::Relaxed) => self.note_failed_login(),
            None => {}
        }
    }

    fn note_failed_login(&self) {
        self.with_place(|place| place.failed(Instant::now()));
    }

    fn with_place<T>(&self, action: impl FnOnce(&mut Place) -> T) -> T {
        action(&mut self.place.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A channel in the count, even if its task panics.
struct Counted(watch::Sender<(bool, usize)>);

impl Counted {
    fn new(state: watch::Sender<(bool, usize)>) -> Self {
        state.send_modify(|state| state.1 += 1);
        Self(state)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|state| state.1 -= 1);
    }
}

async fn overdue(closed: CancellationToken) {
    closed.cancelled().await;
    tokio::time::sleep(AFTER_CLOSE).await;
}
