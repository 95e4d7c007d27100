use tokio::sync::watch;

/// How far a server's life is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub enum Phase {
    /// Requests are answered.
    Serving,
    /// Those that came before are finished; new ones are refused.
    Draining,
    /// What still goes on is told that it ends.
    Ended,
}

/// The phase of a server, and how many requests are open.
#[derive(Debug, Clone)]
pub struct Phases {
    phase: watch::Sender<Phase>,
    open: watch::Sender<usize>,
}

/// A request that is open for as long as this is there.
#[derive(Debug)]
pub struct Open(watch::Sender<usize>);

impl Default for Phases {
    fn default() -> Self {
        Self { phase: watch::Sender::new(Phase::Serving), open: watch::Sender::new(0) }
    }
}

impl Phases {
    pub fn now(&self) -> Phase {
        *self.phase.borrow()
    }

    pub fn go_on(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// When this phase, or one behind it, has come.
    pub async fn reached(&self, phase: Phase) {
        // The sender is at hand: waiting cannot fail.
        let _ = self.phase.subscribe().wait_for(|now| *now >= phase).await;
    }

    pub fn open(&self) -> Open {
        self.open.send_modify(|open| *open += 1);
        Open(self.open.clone())
    }

    pub fn requests_open(&self) -> usize {
        *self.open.borrow()
    }

    /// When no request is open.
    pub async fn idle(&self) {
        let _ = self.open.subscribe().wait_for(|open| *open == 0).await;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}
