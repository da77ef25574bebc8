//! The sessions of clients: so many, the least recently used making room for new ones.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::Stream;
use rmcp::model::{ClientJsonRpcMessage, ServerJsonRpcMessage};
use rmcp::transport::streamable_http_server::session::ServerSseMessage;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{SessionId, SessionManager};

/// Sessions at once. A client that went without a word leaves one behind.
const SESSIONS_MOST: usize = 256;
/// A session without any request for so long is over.
const IDLE_MOST: Duration = Duration::from_hours(4);
/// How long an answer is kept for a client whose connection broke.
const ANSWER_KEPT: Duration = Duration::from_secs(5);

/// Keeps the SDK's sessions few.
pub(super) struct Sessions {
    inner: LocalSessionManager,
    uses: Arc<Uses>,
}

/// When each session was last used.
#[derive(Default)]
struct Uses(Mutex<HashMap<SessionId, Use>>);

struct Use {
    last: Instant,
    /// Answers that are being streamed.
    n_open: usize,
}

impl Uses {
    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Use>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn touch(&self, id: &SessionId) {
        if let Some(session) = self.lock().get_mut(id) {
            session.last = Instant::now();
        }
    }

    fn open(self: &Arc<Self>, id: &SessionId) -> Open {
        if let Some(session) = self.lock().get_mut(id) {
            session.n_open += 1;
        }
        Open {
            uses: Arc::clone(self),
            id: Arc::clone(id),
        }
    }

    /// The sessions that have to go before another one may come.
    fn surplus(&self, now: Instant) -> Vec<SessionId> {
        let uses = self.lock();
        let idle = uses.iter().filter(|(_, session)| session.n_open == 0);
        let mut idle: Vec<_> = idle.map(|(id, session)| (session.last, id)).collect();
        idle.sort();
        let is_old = |last: Instant| now.duration_since(last) > IDLE_MOST;
        let n_old = idle.iter().filter(|(last, _)| is_old(*last)).count();
        let n_over = (uses.len() + 1).saturating_sub(SESSIONS_MOST);
        let surplus = idle.iter().take(n_old.max(n_over));
        surplus.map(|(_, id)| Arc::clone(id)).collect()
    }
}

/// An answer under way: its session is in use.
struct Open {
    uses: Arc<Uses>,
    id: SessionId,
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(session) = self.uses.lock().get_mut(&self.id) {
            session.n_open = session.n_open.saturating_sub(1);
            session.last = Instant::now();
        }
    }
}

/// A stream that keeps its session in use.
struct Held<S> {
    stream: Pin<Box<S>>,
    _open: Open,
}

impl<S: Stream> Stream for Held<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        self.stream.as_mut().poll_next(context)
    }
}

impl Default for Sessions {
    fn default() -> Self {
        let mut inner = LocalSessionManager::default();
        // How long a session may idle is decided here, where it is known whether it does.
        inner.session_config.keep_alive = None;
        inner.session_config.completed_cache_ttl = ANSWER_KEPT;
        Self {
            inner,
            uses: Arc::default(),
        }
    }
}

impl Sessions {
    /// Ends what is in the way of another session. Whether there is room then.
    pub(super) async fn have_room(&self) -> bool {
        for id in self.uses.surplus(Instant::now()) {
            tracing::debug!("a session nobody uses makes room");
            // An error says it has ended already.
            let _ = self.close_session(&id).await;
        }
        self.uses.lock().len() < SESSIONS_MOST
    }
}

type Error = <LocalSessionManager as SessionManager>::Error;

impl SessionManager for Sessions {
    type Error = Error;
    type Transport = <LocalSessionManager as SessionManager>::Transport;

    async fn create_session(&self) -> Result<(SessionId, Self::Transport), Error> {
        let (id, transport) = self.inner.create_session().await?;
        let session = Use {
            last: Instant::now(),
            n_open: 0,
        };
        self.uses.lock().insert(Arc::clone(&id), session);
        Ok((id, transport))
    }

    async fn initialize_session(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<ServerJsonRpcMessage, Error> {
        self.inner.initialize_session(id, message).await
    }

    async fn has_session(&self, id: &SessionId) -> Result<bool, Error> {
        self.uses.touch(id);
        self.inner.has_session(id).await
    }

    async fn close_session(&self, id: &SessionId) -> Result<(), Error> {
        self.uses.lock().remove(id);
        self.inner.close_session(id).await
    }

    async fn create_stream(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Error> {
        let open = self.uses.open(id);
        let stream = self.inner.create_stream(id, message).await?;
        Ok(held(stream, open))
    }

    async fn accept_message(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<(), Error> {
        self.inner.accept_message(id, message).await
    }

    async fn create_standalone_stream(
        &self,
        id: &SessionId,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Error> {
        let open = self.uses.open(id);
        let stream = self.inner.create_standalone_stream(id).await?;
        Ok(held(stream, open))
    }

    async fn resume(
        &self,
        id: &SessionId,
        last_event_id: String,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Error> {
        let open = self.uses.open(id);
        let stream = self.inner.resume(id, last_event_id).await?;
        Ok(held(stream, open))
    }
}

fn held<S: Stream>(stream: S, open: Open) -> Held<S> {
    Held {
        stream: Box::pin(stream),
        _open: open,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_idle_makes_room_and_one_in_use_never() {
        let uses = Arc::new(Uses::default());
        let now = Instant::now();
        let id = |n: usize| SessionId::from(format!("{n:03}"));
        for n in 0..SESSIONS_MOST {
            let last = now + Duration::from_secs(n as u64);
            uses.lock().insert(id(n), Use { last, n_open: 0 });
        }
        assert_eq!(uses.surplus(now), [id(0)]);
        let open = uses.open(&id(0));
        assert_eq!(uses.surplus(now), [id(1)]);
        drop(open);
        // Used just now: later than the second, in this test's time only by its own clock.
        uses.lock().remove(&id(255));
        assert!(uses.surplus(now).is_empty());
        let later = now + IDLE_MOST + Duration::from_secs(2);
        let surplus = uses.surplus(later);
        assert!(surplus.contains(&id(1)) && !surplus.contains(&id(200)));
    }
}
