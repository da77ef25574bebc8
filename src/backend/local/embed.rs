//! Vectors of texts: by a model made for them, or by one that writes.

use futures_util::{StreamExt, TryStreamExt, stream};

use super::LocalBackend;
use crate::backend::{BackendError, BackendErrorKind, Deadline};
use crate::chat::TokenId;
use crate::embedding::{EmbedInput, EmbedRequest, Embeddings, Overlong};
use crate::engine::{Event, Vectors};
use crate::model::{Shorter, shorten};
use crate::pool::{ChatModel, EmbeddingModel, Lease, Loaded, LoadedModel, Wish};
use crate::text::{self, Framing, SpecialTokens};

/// Inputs of one request that an engine computes side by side: the others' requests run beside them.
const SIDE_BY_SIDE: usize = 4;

impl LocalBackend {
    /// The vectors of `request`'s inputs. Dropping the future cancels what is not computed yet.
    ///
    /// # Errors
    /// [`BackendError`].
    pub async fn embed(
        &self,
        request: EmbedRequest,
        deadline: Deadline,
    ) -> Result<Embeddings, BackendError> {
        let wish = Wish {
            keep_alive: request.keep_alive,
            ..self.pool.wish()
        };
        let lease = self.pool.acquire_with(&request.model, wish, deadline);
        let lease = lease.await?;
        let n_dimensions = check_dimensions(&lease, request.dimensions)?;
        let (lease, inputs) = encode(lease, request.inputs, request.overlong).await?;
        let n_tokens = inputs.iter().map(|tokens| tokens.len() as u64).sum();
        let computed = compute(&lease, inputs);
        let mut vectors = match deadline {
            None => computed.await?,
            Some(by) => tokio::time::timeout_at(by.into(), computed)
                .await
                .map_err(|_| {
                    let text = "the deadline passed before the vectors were made";
                    BackendError::new(BackendErrorKind::Timeout, text)
                })??,
        };
        if let Some(n_dimensions) = n_dimensions {
            for vector in &mut vectors {
                shorten(vector, n_dimensions);
            }
        }
        Ok(Embeddings {
            vectors,
            n_tokens,
            cost: None,
        })
    }
}

/// Numbers that vectors are to be cut to; `None` leaves them whole.
fn check_dimensions(
    loaded: &Loaded,
    dimensions: Option<u32>,
) -> Result<Option<usize>, BackendError> {
    let (n_embd, shorter) = match &loaded.model {
        LoadedModel::Embedding(model) => (model.config.n_embd, &model.config.shorter),
        LoadedModel::Chat(model) => (model.config.n_embd, &Shorter::Never),
    };
    let Some(wanted) = dimensions.map(|n| n as usize).filter(|n| *n != n_embd) else {
        return Ok(None);
    };
    let (fits, has) = match shorter {
        Shorter::ToAny => ((1..n_embd).contains(&wanted), format!("1 to {n_embd}")),
        Shorter::To(sizes) => {
            let shown: Vec<String> = sizes.iter().map(ToString::to_string).collect();
            (sizes.contains(&wanted), shown.join(", "))
        }
        Shorter::Never => (false, n_embd.to_string()),
    };
    if fits {
        return Ok(Some(wanted));
    }
    let id = &loaded.id;
    Err(invalid(
        "dimensions",
        format!("dimensions is {wanted}: {id} was trained for vectors of {has} numbers"),
    ))
}

/// Tokenizes off the threads that serve connections: many texts take a while.
async fn encode(
    lease: Lease,
    inputs: Vec<EmbedInput>,
    overlong: Overlong,
) -> Result<(Lease, Vec<Vec<TokenId>>), BackendError> {
    let work = tokio::task::spawn_blocking(move || {
        let place = Place {
            loaded: &lease,
            overlong,
        };
        let inputs = inputs.into_iter().enumerate();
        let encoded = inputs.map(|(index, input)| place.encode(index, input));
        let encoded = encoded.collect::<Result<_, _>>()?;
        Ok((lease, encoded))
    });
    let failed = |error| BackendError::new(BackendErrorKind::Failed, format!("encoding: {error}"));
    work.await.map_err(failed)?
}

/// What inputs are encoded for.
struct Place<'a> {
    loaded: &'a Loaded,
    overlong: Overlong,
}

impl Place<'_> {
    fn encode(&self, index: usize, input: EmbedInput) -> Result<Vec<TokenId>, BackendError> {
        let n_most = self.loaded.n_ctx as usize;
        let truncates = self.overlong == Overlong::Truncate;
        let ids = match (input, &self.loaded.model) {
            (EmbedInput::Text(text), LoadedModel::Embedding(model)) => {
                let mut tokens = model
                    .sentences
                    .encode(&text)
                    .map_err(|error| refused(&error))?;
                if truncates {
                    tokens.truncate(n_most);
                }
                tokens.ids
            }
            (EmbedInput::Text(text), LoadedModel::Chat(model)) => {
                let framing = Framing::AsTheModelWants;
                let ids = model.text.encode(&text, SpecialTokens::AsText, framing);
                ids.map_err(|error| refused(&error))?
            }
            (EmbedInput::Tokens(ids), _) => {
                self.check_tokens(index, &ids)?;
                ids
            }
        };
        self.fitting(index, ids, truncates)
    }

    fn check_tokens(&self, index: usize, ids: &[TokenId]) -> Result<(), BackendError> {
        let n_vocab = match &self.loaded.model {
            LoadedModel::Embedding(model) => model.config.n_vocab,
            LoadedModel::Chat(model) => model.config.n_vocab,
        };
        match ids.iter().position(|id| *id as usize >= n_vocab) {
            None => Ok(()),
            Some(place) => {
                let (id, model) = (ids[place], &self.loaded.id);
                let problem = format!("the vocabulary of {model} has {n_vocab} tokens");
                let message = format!("token {place} of input {index} is {id}: {problem}");
                Err(invalid("input", message))
            }
        }
    }

    fn fitting(
        &self,
        index: usize,
        mut ids: Vec<TokenId>,
        truncates: bool,
    ) -> Result<Vec<TokenId>, BackendError> {
        let (n_tokens, n_ctx) = (ids.len(), self.loaded.n_ctx);
        if n_tokens == 0 {
            return Err(invalid(
                "input",
                format!("input {index} has no token: leave it out"),
            ));
        }
        if truncates {
            ids.truncate(n_ctx as usize);
        }
        if ids.len() <= n_ctx as usize {
            return Ok(ids);
        }
        let kind = BackendErrorKind::PromptTooLong {
            n_prompt_tokens: u32::try_from(n_tokens).unwrap_or(u32::MAX),
            n_ctx,
        };
        let model = &self.loaded.id;
        let message = format!(
            "input {index} has {n_tokens} tokens, and {model} takes {n_ctx} at most: shorten it, or say \
             that it may be cut off (truncate)"
        );
        Err(BackendError::new(kind, message))
    }
}

async fn compute(loaded: &Loaded, inputs: Vec<Vec<TokenId>>) -> Result<Vectors, BackendError> {
    match &loaded.model {
        LoadedModel::Embedding(model) => by_embedder(model, inputs).await,
        LoadedModel::Chat(model) => {
            let vectors = stream::iter(inputs).map(|tokens| by_engine(model, tokens));
            vectors.buffered(SIDE_BY_SIDE).try_collect().await
        }
    }
}

async fn by_embedder(
    model: &EmbeddingModel,
    inputs: Vec<Vec<TokenId>>,
) -> Result<Vectors, BackendError> {
    let vectors = model.embedder.submit(inputs)?.await;
    let vectors = vectors.map_err(|_| failed("the embedder stopped"))?;
    vectors.map_err(|error| failed(error.to_string()))
}

async fn by_engine(model: &ChatModel, tokens: Vec<TokenId>) -> Result<Vec<f32>, BackendError> {
    let mut events = model.engine.embed(tokens, model.readout)?;
    match events.recv().await {
        Some(Event::Finished {
            vector: Some(vector),
            ..
        }) => Ok(vector),
        Some(Event::Failed(error)) => Err(failed(error.to_string())),
        Some(_) | None => Err(failed("the engine made no vector")),
    }
}

fn failed(message: impl Into<String>) -> BackendError {
    BackendError::new(BackendErrorKind::Failed, message)
}

fn refused(error: &text::Error) -> BackendError {
    invalid("input", error.to_string())
}

fn invalid(param: &'static str, message: String) -> BackendError {
    BackendError::new(BackendErrorKind::InvalidRequest { param }, message)
}
