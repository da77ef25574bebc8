//! The loop of an embedder's thread.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Instant;

use tokio::sync::oneshot;

use super::queue::{Picked, Queue, RequestId};
use super::{Encode, Vectors};
use crate::chat::TokenId;
use crate::engine::error::EngineError;
use crate::engine::rate::Rate;
use crate::engine::run::panic_message;
use crate::engine::sequence::count;
use crate::engine::shared::Shared;
use crate::engine::snapshot::EngineSnapshot;

/// A request on its way in.
pub(super) struct Submission {
    pub(super) inputs: Vec<Vec<TokenId>>,
    pub(super) reply: oneshot::Sender<Result<Vectors, EngineError>>,
}

/// Whoever waits for a request's vectors.
struct Client {
    reply: oneshot::Sender<Result<Vectors, EngineError>>,
    vectors: Vec<Option<Vec<f32>>>,
    n_left: usize,
}

/// Everything the thread owns.
pub(super) struct Runner<N> {
    network: N,
    step_tokens: usize,
    submissions: Receiver<Submission>,
    shared: Arc<Shared>,
    queue: Queue,
    clients: BTreeMap<RequestId, Client>,
    next_id: u64,
    n_ended: usize,
    /// Said once the figures of the step are public.
    outbox: Vec<(Client, Result<(), EngineError>)>,
    figures: EngineSnapshot,
    rate: Rate,
}

impl<N: Encode> Runner<N> {
    /// A loop that has not begun.
    pub(super) fn new(
        network: N,
        step_tokens: usize,
        submissions: Receiver<Submission>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            network,
            step_tokens,
            submissions,
            shared,
            queue: Queue::default(),
            clients: BTreeMap::new(),
            next_id: 0,
            n_ended: 0,
            outbox: Vec::new(),
            figures: EngineSnapshot::default(),
            rate: Rate::default(),
        }
    }

    /// Works until the embedder is dropped. After a panic it answers nothing any more, but says so to
    /// everyone who asked.
    pub(super) fn run(mut self) {
        let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.work())) else {
            return self.fail_all(&EngineError::Stopped);
        };
        let reason: Arc<str> = panic_message(panic.as_ref()).into();
        tracing::error!(%reason, "the embedder failed");
        self.shared.fail(&reason);
        let error = EngineError::Failed { reason };
        self.fail_all(&error);
        while let Ok(late) = self.submissions.recv() {
            self.shared.leave(1);
            let _ = late.reply.send(Err(error.clone()));
        }
    }

    fn work(&mut self) {
        while self.take_submissions() {
            self.look_for_the_gone();
            let step = self.queue.next_step(self.step_tokens);
            if !step.is_empty() {
                self.step(step);
            }
            self.publish();
        }
    }

    /// Takes in what was submitted; sleeps for it if there is nothing else to do. False when the
    /// embedder was dropped.
    fn take_submissions(&mut self) -> bool {
        let mut next = if self.clients.is_empty() {
            let waited = self.submissions.recv();
            waited.map_err(|_| TryRecvError::Disconnected)
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

    fn take_in(&mut self, Submission { inputs, reply }: Submission) {
        let id = RequestId(self.next_id);
        self.next_id += 1;
        let client = Client {
            reply,
            vectors: vec![None; inputs.len()],
            n_left: inputs.len(),
        };
        self.clients.insert(id, client);
        self.queue.push(id, inputs);
    }

    fn look_for_the_gone(&mut self) {
        let gone = self
            .clients
            .extract_if(.., |_, client| client.reply.is_closed());
        for (id, _) in gone {
            self.queue.remove(id);
            self.figures.n_cancelled_total += 1;
            self.n_ended += 1;
        }
    }

    fn step(&mut self, step: Vec<Picked>) {
        let begun = Instant::now();
        let inputs: Vec<&[TokenId]> = step.iter().map(|picked| &*picked.tokens).collect();
        let n_tokens = inputs.iter().map(|tokens| tokens.len()).sum();
        let vectors = self.network.encode(&inputs);
        self.figures.n_steps_total += 1;
        match vectors {
            Ok(vectors) => {
                self.rate.add(count(n_tokens), begun.elapsed());
                self.figures.n_prompt_total += n_tokens as u64;
                let (n_vectors, n_inputs) = (vectors.len(), step.len());
                // A request without its vector would wait for it for ever.
                assert_eq!(
                    n_vectors, n_inputs,
                    "the network gave {n_vectors} vectors for {n_inputs} inputs"
                );
                for (picked, vector) in step.into_iter().zip(vectors) {
                    self.commit(&picked, vector);
                }
            }
            Err(error) => {
                tracing::warn!(%error, n_inputs = step.len(), "a step failed");
                for picked in step {
                    self.end(
                        picked.request,
                        Err(EngineError::Forward(Arc::clone(&error))),
                    );
                }
            }
        }
    }

    fn commit(&mut self, picked: &Picked, vector: Vec<f32>) {
        let Some(client) = self.clients.get_mut(&picked.request) else {
            return;
        };
        client.vectors[picked.index] = Some(vector);
        client.n_left -= 1;
        if client.n_left == 0 {
            self.end(picked.request, Ok(()));
        }
    }

    /// A request ends; one that has ended already is left alone.
    fn end(&mut self, id: RequestId, outcome: Result<(), EngineError>) {
        self.queue.remove(id);
        let Some(client) = self.clients.remove(&id) else {
            return;
        };
        match outcome {
            Ok(()) => self.figures.n_finished_total += 1,
            Err(_) => self.figures.n_failed_total += 1,
        }
        self.n_ended += 1;
        self.outbox.push((client, outcome));
    }

    fn fail_all(&mut self, error: &EngineError) {
        let ids: Vec<RequestId> = self.clients.keys().copied().collect();
        for id in ids {
            self.end(id, Err(error.clone()));
        }
        self.publish();
    }

    /// Makes the figures public, then answers: who hears an end finds it counted.
    fn publish(&mut self) {
        self.figures.n_running = self.clients.len();
        self.figures.prefill_tokens_per_second = self.rate.per_second();
        let n_ended = std::mem::take(&mut self.n_ended);
        self.shared
            .publish(self.figures.clone(), n_ended, Instant::now());
        for (client, outcome) in self.outbox.drain(..) {
            let vectors = client.vectors.into_iter().flatten().collect();
            // Whoever left meanwhile hears nothing.
            let _ = client.reply.send(outcome.map(|()| vectors));
        }
    }
}
