//! The loop of an engine's thread.

use std::any::Any;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::batch;
use super::board::Board;
use super::client::{Client, Reader};
use super::error::EngineError;
use super::event::Event;
use super::network::{Fault, Network};
use super::predict::{CostFit, Prediction};
use super::rate::Rate;
use super::request::GenerateRequest;
use super::sampler::Scratch;
use super::scheduler::{Row, Scheduler, StepPlan};
use super::sequence::{SeqId, Sequence};
use super::shared::Shared;
use super::snapshot::EngineSnapshot;
use crate::chat::{FinishReason, TokenId};
use crate::model::{Batch, LogitRow, Pooler, Readout, Seen};

/// How often it looks for room when all readers are full.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A request on its way in.
#[derive(Debug)]
pub(super) struct Submission {
    pub(super) request: GenerateRequest,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) submitted: Instant,
    /// Its place in the order in which requests came.
    pub(super) ticket: u64,
    /// What was predicted for it.
    pub(super) foretold: Option<Prediction>,
    /// How the states of the prompt become a vector, where one is wanted.
    pub(super) readout: Option<Readout>,
}

/// Bounds the loop itself keeps.
#[derive(Clone, Copy, Debug)]
pub(super) struct RunOptions {
    pub(super) n_ctx: u32,
    pub(super) reader_timeout: Duration,
}

/// Everything the thread owns.
pub(super) struct Runner<N> {
    network: N,
    scheduler: Scheduler,
    options: RunOptions,
    submissions: Receiver<Submission>,
    shared: Arc<Shared>,
    board: Arc<Board>,
    /// Whoever waits for each sequence of the scheduler.
    clients: BTreeMap<SeqId, Client>,
    /// All before it were taken in.
    next_ticket: u64,
    /// Sent once the figures of the step are public.
    outbox: Vec<(mpsc::Sender<Event>, Event)>,
    n_ended: usize,
    figures: EngineSnapshot,
    prefill: Rate,
    decode: Rate,
    cost: CostFit,
    turn_wait: Duration,
    batch: Batch,
    scratch: Scratch,
}

impl<N: Network> Runner<N> {
    /// A loop that has not begun.
    pub(super) fn new(
        network: N,
        scheduler: Scheduler,
        options: RunOptions,
        submissions: Receiver<Submission>,
        (shared, board): (Arc<Shared>, Arc<Board>),
    ) -> Self {
        Self {
            network,
            scheduler,
            options,
            submissions,
            shared,
            board,
            clients: BTreeMap::new(),
            next_ticket: 0,
            outbox: Vec::new(),
            n_ended: 0,
            figures: EngineSnapshot::default(),
            prefill: Rate::default(),
            decode: Rate::default(),
            cost: CostFit::default(),
            turn_wait: Duration::ZERO,
            batch: Batch::default(),
            scratch: Scratch::default(),
        }
    }

    /// Works until the engine is dropped. After a panic, or with its device lost, it answers nothing any more, but says so
    /// to everyone who asked.
    pub(super) fn run(mut self) {
        let reason: Arc<str> = match catch_unwind(AssertUnwindSafe(|| self.work())) {
            Ok(Ok(())) => return self.fail_all(&EngineError::Stopped),
            Ok(Err(fault)) => fault.error.to_string().into(),
            Err(panic) => panic_message(panic.as_ref()).into(),
        };
        tracing::error!(%reason, "the engine failed");
        self.shared.fail(&reason);
        let error = EngineError::Failed { reason };
        self.fail_all(&error);
        while let Ok(late) = self.submissions.recv() {
            self.shared.leave(1);
            let _ = late.events.try_send(Event::Failed(error.clone()));
        }
    }

    /// Errors: no step can be computed any more.
    fn work(&mut self) -> Result<(), Fault> {
        let mut is_blocked = false;
        while self.take_submissions(is_blocked) {
            self.look_at_readers();
            let plan = self.scheduler.schedule();
            is_blocked = plan.rows.is_empty();
            self.post();
            if !is_blocked {
                self.step(&plan)?;
            }
            self.publish();
        }
        Ok(())
    }

    /// Takes in what was submitted; sleeps for it if there is nothing else to do. False when the
    /// engine was dropped.
    fn take_submissions(&mut self, is_blocked: bool) -> bool {
        let mut next = if self.clients.is_empty() {
            self.submissions
                .recv()
                .map_err(|_| TryRecvError::Disconnected)
        } else if is_blocked {
            self.submissions
                .recv_timeout(LOOK_AGAIN)
                .map_err(|error| match error {
                    RecvTimeoutError::Timeout => TryRecvError::Empty,
                    RecvTimeoutError::Disconnected => TryRecvError::Disconnected,
                })
        } else {
            self.submissions.try_recv()
        };
        loop {
            match next {
                Ok(submission) => self.take_in(submission),
                Err(error) => return error == TryRecvError::Empty,
            }
            next = self.submissions.try_recv();
        }
    }

    fn take_in(&mut self, submission: Submission) {
        let id = SeqId(submission.ticket);
        self.next_ticket = submission.ticket + 1;
        let seed = RandomState::new().hash_one(self.next_ticket);
        let client = Client::new(submission.events, submission.submitted, submission.foretold);
        self.clients.insert(id, client);
        let n_ctx = self.options.n_ctx;
        let mut sequence = Sequence::new(id, submission.request, n_ctx, seed);
        sequence.pooler = submission.readout.map(Pooler::new);
        self.scheduler.submit(sequence);
    }

    /// Drops the sequences nobody waits for, pauses those whose reader has no room.
    fn look_at_readers(&mut self) {
        let now = Instant::now();
        let patience = self.options.reader_timeout;
        let look = |(id, client): (&SeqId, &mut Client)| (*id, client.look(now, patience));
        let readers: Vec<(SeqId, Reader)> = self.clients.iter_mut().map(look).collect();
        for (id, reader) in readers {
            match reader {
                Reader::Ready | Reader::Full => {
                    if let Some(sequence) = self.scheduler.sequence_mut(id) {
                        sequence.paused = matches!(reader, Reader::Full);
                    }
                }
                Reader::TooSlow(error) => self.fail(id, error),
                Reader::Gone => {
                    self.figures.n_cancelled_total += 1;
                    self.learn_of_cancelled(id, now);
                    self.end(id);
                }
            }
        }
    }

    /// Errors: neither this step nor a later one can be computed.
    fn step(&mut self, plan: &StepPlan) -> Result<(), Fault> {
        let begun = Instant::now();
        for row in &plan.rows {
            if let Some(client) = self.clients.get_mut(&row.seq)
                && client.start(begun)
                && let Some(sequence) = self.scheduler.sequence(row.seq)
            {
                let n_prompt_tokens = sequence.usage().prompt_tokens;
                self.board.learn(begun, |learned, now| {
                    learned.traffic.add(n_prompt_tokens, now);
                });
            }
        }
        batch::fill(&mut self.batch, plan, &self.scheduler);
        let drawn = self.compute(plan);
        let now = Instant::now();
        match drawn {
            Ok(tokens) => {
                self.measure(plan, now.duration_since(begun));
                // A sequence without its token would wait for it for ever.
                let n_wanted = self.batch.logit_rows.len();
                let n_drawn = tokens.len();
                assert_eq!(
                    n_drawn, n_wanted,
                    "the network gave {n_drawn} rows of logits for {n_wanted}"
                );
                let mut tokens = tokens.into_iter();
                for row in &plan.rows {
                    let token = row.wants_logits.then(|| tokens.next()).flatten();
                    self.commit(row, token, now);
                }
            }
            Err(fault) => {
                tracing::warn!(error = %fault.error, n_seqs = plan.rows.len(), "a step failed");
                for row in &plan.rows {
                    self.fail(row.seq, EngineError::Forward(Arc::clone(&fault.error)));
                }
                if fault.is_final {
                    return Err(fault);
                }
            }
        }
        Ok(())
    }

    /// Computes a step and draws a token for each row that wants one.
    fn compute(&mut self, plan: &StepPlan) -> Result<Vec<Result<TokenId, EngineError>>, Fault> {
        let mut rows = plan.rows.iter().filter(|row| row.wants_logits).peekable();
        let mut drawn = Vec::with_capacity(self.batch.logit_rows.len());
        let (scheduler, scratch) = (&self.scheduler, &mut self.scratch);
        self.network.forward(&self.batch, &mut |logits| {
            let row = rows.peek();
            let sequence = row.and_then(|row| scheduler.sequence(row.seq));
            if let Some(sequence) = sequence {
                let (sampler, position) = (&sequence.sampler, sequence.n_tokens());
                let token = match logits {
                    LogitRow::Whole(logits) => sampler.sample(logits, position, scratch),
                    LogitRow::Top(top) => match sampler.sample_top(top, position, scratch) {
                        Some(token) => Ok(token),
                        None => return Seen::TheWholeIsNeeded,
                    },
                };
                drawn.push(token);
            }
            rows.next();
            Seen::Enough
        })?;
        if !self.batch.state_rows.is_empty() {
            self.pool(plan)?;
        }
        Ok(drawn)
    }

    /// Takes the states of those who want a vector.
    fn pool(&mut self, plan: &StepPlan) -> Result<(), Fault> {
        for row in plan.rows.iter().filter(|row| row.start == 0) {
            let sequence = self.scheduler.sequence_mut(row.seq);
            if let Some(pooler) = sequence.and_then(|sequence| sequence.pooler.as_mut()) {
                // It may have been computed before, and given its blocks back.
                pooler.restart();
            }
        }
        let mut tokens = self.batch.state_rows.iter();
        let (scheduler, starts) = (&mut self.scheduler, &self.batch.cu_seqlens);
        self.network.states(&self.batch, &mut |state| {
            let Some(token) = tokens.next() else {
                return;
            };
            let n_begun = starts.partition_point(|start| start <= token);
            let row = n_begun.checked_sub(1).and_then(|row| plan.rows.get(row));
            let sequence = row.and_then(|row| scheduler.sequence_mut(row.seq));
            if let Some(pooler) = sequence.and_then(|sequence| sequence.pooler.as_mut()) {
                pooler.add(state);
            }
        })
    }

    fn commit(&mut self, row: &Row, token: Option<Result<TokenId, EngineError>>, now: Instant) {
        let Some(sequence) = self.scheduler.sequence_mut(row.seq) else {
            return;
        };
        let Some(client) = self.clients.get_mut(&row.seq) else {
            return;
        };
        sequence.n_computed += row.n_tokens;
        if client.is_prefilling() && (token.is_some() || sequence.is_evaluated()) {
            client.progress(now);
            if let Some((foretold, seconds)) = client.foretold(now) {
                self.board.learn(now, |learned, _| {
                    learned.calibration.add_ttft(&foretold, seconds);
                });
            }
            self.figures.n_prompt_total += u64::from(sequence.usage().prompt_tokens);
        }
        let reason = match token {
            Some(Ok(token)) => {
                self.figures.n_generated_total += 1;
                let reason = sequence.accept(token);
                if reason != Some(FinishReason::Stop) {
                    self.outbox
                        .push((client.events.clone(), Event::Token(token)));
                }
                reason
            }
            Some(Err(error)) => return self.fail(row.seq, error),
            None => sequence.is_evaluated().then_some(FinishReason::Length),
        };
        if let Some(reason) = reason {
            let pooled = sequence.pooler.as_ref().map(Pooler::finish).transpose();
            let event = client.finished(reason, sequence.usage(), now);
            if let Some((foretold, seconds)) = client.foretold(now) {
                let n_generated = sequence.n_generated();
                self.board.learn(now, |learned, _| {
                    learned.calibration.add_total(&foretold, seconds);
                    match reason {
                        FinishReason::Length => learned.lengths.cut(n_generated),
                        _ => learned.lengths.ended(n_generated),
                    }
                });
            }
            match pooled {
                Ok(vector) => {
                    self.figures.n_finished_total += 1;
                    self.say_last(row.seq, event.with_vector(vector));
                }
                Err(error) => self.fail(row.seq, EngineError::Forward(Arc::new(error))),
            }
        }
    }

    /// Whoever went away before its first token, later than foretold, waited too long at least; whoever went away
    /// after it may have wanted more.
    fn learn_of_cancelled(&self, id: SeqId, now: Instant) {
        let sequence = self.scheduler.sequence(id);
        let foretold = self
            .clients
            .get(&id)
            .and_then(|client| client.foretold(now));
        let (Some(sequence), Some((foretold, seconds))) = (sequence, foretold) else {
            return;
        };
        let n_generated = sequence.n_generated();
        self.board.learn(now, |learned, _| {
            if n_generated > 0 {
                learned.lengths.cut(n_generated);
            } else if seconds > foretold.ttft.p90 {
                learned.calibration.add_ttft(&foretold, seconds);
            }
        });
    }

    fn fail(&mut self, id: SeqId, error: EngineError) {
        self.figures.n_failed_total += 1;
        self.say_last(id, Event::Failed(error));
    }

    fn say_last(&mut self, id: SeqId, event: Event) {
        if let Some(client) = self.end(id) {
            self.outbox.push((client.events, event));
        }
    }

    /// Forgets a sequence; its blocks are free.
    fn end(&mut self, id: SeqId) -> Option<Client> {
        self.scheduler.remove(id);
        self.n_ended += 1;
        self.clients.remove(&id)
    }

    fn fail_all(&mut self, error: &EngineError) {
        let ids: Vec<SeqId> = self.clients.keys().copied().collect();
        for id in ids {
            self.fail(id, error.clone());
        }
        self.publish();
    }

    fn measure(&mut self, plan: &StepPlan, time: Duration) {
        self.figures.n_steps_total += 1;
        let waited = self.network.waited().min(time);
        let computed = time.saturating_sub(waited);
        self.cost.add(&plan.shape(), computed.as_secs_f64());
        // The mean of the last steps, the latest counting most.
        self.turn_wait = (self.turn_wait * 7 + waited) / 8;
        let (decodes, prompts): (Vec<&Row>, Vec<&Row>) =
            plan.rows.iter().partition(|row| row.n_tokens == 1);
        if !prompts.is_empty() {
            self.prefill
                .add(prompts.iter().map(|row| row.n_tokens).sum(), time);
        }
        if !decodes.is_empty() {
            self.decode.add(1, time);
        }
    }

    /// Posts who is there as the next step finds them.
    fn post(&self) {
        let speed = (self.cost.cost(), self.turn_wait);
        let now = Instant::now();
        self.board
            .post(&self.scheduler, self.next_ticket, speed, now);
    }

    /// Makes the figures public, then sends the events: who hears an end finds it counted.
    fn publish(&mut self) {
        self.figures.n_running = self.scheduler.n_running();
        self.figures.n_paused = self.scheduler.n_paused();
        self.figures.n_free_blocks = self.scheduler.n_free_blocks();
        self.figures.n_blocks = self.scheduler.n_blocks();
        self.figures.n_preempted_total = self.scheduler.n_preempted();
        self.figures.prefill_tokens_per_second = self.prefill.per_second();
        self.figures.decode_tokens_per_second = self.decode.per_second();
        if self.clients.is_empty() {
            // It goes to sleep: nobody is there.
            self.post();
        }
        let n_ended = std::mem::take(&mut self.n_ended);
        self.shared
            .publish(self.figures.clone(), n_ended, Instant::now());
        if self.clients.is_empty() {
            // It goes to sleep: nobody is there.
            self.post();
        }
        for (events, event) in self.outbox.drain(..) {
            // There is room, or nobody to hear it: see `client`.
            let _ = events.try_send(event);
        }
    }
}

pub(super) fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without a message")
}
