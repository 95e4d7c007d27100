//! The engine's thread: what happens in which order.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nn::{MediaInput, Model, NnError};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

use crate::EngineError;
use crate::errand::{Errand, Wish};
use crate::runner::{Runner, guarded};
use crate::scheduler::Scheduler;
use crate::stats::count;

/// Whatever the thread owns.
pub struct Worker {
    model: Box<dyn Model>,
    rest: Rest,
}

/// All but the model, which may be encoding while the rest goes on.
struct Rest {
    inbox: mpsc::Receiver<Errand>,
    /// Media that are to be encoded by themselves.
    wishes: VecDeque<Wish>,
    /// The engine was not dropped.
    open: bool,
    scheduler: Scheduler,
    runner: Runner,
}

/// A media item that is to be encoded.
struct Job {
    input: Arc<MediaInput>,
    whose: Whose,
}

/// Who waits for an encoded item.
enum Whose {
    /// A sequence, as one of its items.
    Sequence { id: u64, item: usize },
    /// Nobody who would read it.
    Wish(Wish),
}

impl Worker {
    pub fn new(model: Box<dyn Model>, inbox: mpsc::Receiver<Errand>, scheduler: Scheduler, runner: Runner) -> Self {
        Self { model, rest: Rest { inbox, wishes: VecDeque::new(), open: true, scheduler, runner } }
    }

    /// Until the engine is dropped.
    pub fn run(mut self) {
        while self.rest.open {
            self.rest.wait();
            if let Some(job) = self.rest.next_job() {
                self.encode(job);
            }
            self.rest.turn(&*self.model);
        }
    }

    /// Encodes a media item; in its pauses others have their turn.
    fn encode(&mut self, job: Job) {
        let Self { model, rest } = self;
        let model = &**model;
        rest.scheduler.pace.encoding = true;
        let began = Instant::now();
        let mut others = Duration::ZERO;
        let mut due = began + rest.encoding_time();
        let mut pause = || {
            let paused = Instant::now();
            if paused < due {
                return Ok(());
            }
            rest.turn(model);
            others += paused.elapsed();
            due = Instant::now() + rest.encoding_time();
            let wanted = rest.open && rest.wants(&job.whose);
            if wanted { Ok(()) } else { Err(NnError::Interrupted) }
        };
        let encoded = guarded(|| model.encode(&job.input, &mut pause));
        rest.scheduler.pace.encoding = false;
        let took = began.elapsed().saturating_sub(others);
        count(&rest.runner.counters.encode_micros, took.as_micros() as usize);
        let encoded = encoded.and_then(|encoded| match encoded.rows() {
            rows if rows == job.input.rows => Ok(encoded),
            rows => Err(format!("the encoder made {rows} rows where {} were expected", job.input.rows)),
        });
        if let Ok(encoded) = &encoded {
            rest.runner.encodings.insert(job.input.hash, encoded.clone());
        }
        match (job.whose, encoded) {
            (Whose::Wish(wish), encoded) => wish.fulfil(encoded),
            (Whose::Sequence { id, item }, Ok(encoded)) => {
                if let Some(sequence) = rest.scheduler.find(id) {
                    sequence.encoded[item] = Some(encoded);
                    sequence.encoding_took(took);
                }
            }
            (Whose::Sequence { id, item }, Err(reason)) => rest.scheduler.fail(id, EngineError::Encode { item, reason }),
        }
    }
}

impl Rest {
    /// Until there is something to do.
    fn wait(&mut self) {
        if self.scheduler.is_idle() && self.wishes.is_empty() {
            match self.inbox.blocking_recv() {
                Some(errand) => self.take(errand),
                None => self.open = false,
            }
        }
    }

    fn take(&mut self, errand: Errand) {
        match errand {
            Errand::Answer(sequence) => self.scheduler.push(*sequence),
            Errand::Encode(wish) => self.wishes.push_back(wish),
        }
    }

    fn wants(&mut self, whose: &Whose) -> bool {
        match whose {
            Whose::Sequence { id, .. } => self.scheduler.find(*id).is_some(),
            Whose::Wish(wish) => !wish.answer.is_closed(),
        }
    }

    /// Takes in what has arrived.
    fn receive(&mut self) {
        while self.open {
            match self.inbox.try_recv() {
                Ok(errand) => self.take(errand),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => self.open = false,
            }
        }
    }

    /// The next media item to encode: for those that run, after those that were encoded before have found their places, and for
    /// those that wait for nothing else.
    fn next_job(&mut self) -> Option<Job> {
        self.scheduler.sweep();
        while let Some((id, item)) = self.scheduler.unencoded() {
            let sequence = self.scheduler.find(id)?;
            let input = sequence.prompt.media[item].input.clone();
            let counters = &self.runner.counters;
            let Some(encoded) = self.runner.encodings.get(&input.hash) else {
                count(&counters.encoded, 1);
                return Some(Job { input, whose: Whose::Sequence { id, item } });
            };
            count(&counters.encoder_hits, 1);
            sequence.encoded[item] = Some(encoded);
        }
        while let Some(wish) = self.wishes.pop_front() {
            match self.runner.encodings.get(&wish.input.hash) {
                _ if wish.answer.is_closed() => {}
                Some(encoded) => wish.fulfil(Ok(encoded)),
                None => return Some(Job { input: wish.input.clone(), whose: Whose::Wish(wish) }),
            }
        }
        None
    }

    /// For how long media may be encoded before others have their turn.
    fn encoding_time(&self) -> Duration {
        self.scheduler.pace.encoding_time(self.scheduler.writing())
    }

    /// One step of all that can go on.
    fn turn(&mut self, model: &dyn Model) {
        self.receive();
        if self.open {
            let step = AssertUnwindSafe(|| {
                self.scheduler.sweep();
                let shares = self.scheduler.plan(&self.runner.counters);
                self.runner.step(model, &mut self.scheduler, shares);
            });
            // What a model does wrong is caught before it gets here. The rest may have left the books in any state.
            if catch_unwind(step).is_err() {
                self.scheduler.start_over(&EngineError::Internal("a step panicked".into()));
            }
        } else {
            self.scheduler.start_over(&EngineError::ShutDown);
        }
        self.scheduler.account(&self.runner.counters);
    }
}
