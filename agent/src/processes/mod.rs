//! To come.
use tokio::sync::watch;
#[derive(Clone, Debug)]
pub(crate) struct ProcessRegistry(watch::Sender<usize>);
impl Default for ProcessRegistry {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}
impl ProcessRegistry {
    pub(crate) fn live_changes(&self) -> watch::Receiver<usize> {
        self.0.subscribe()
    }
}
