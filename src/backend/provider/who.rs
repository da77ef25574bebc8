//! Who failed: every error of a provider names it and the model, and shows no key.

use std::sync::Arc;

use super::fault::{Fault, scrubbed};
use crate::backend::{BackendError, BackendErrorKind, ProviderFault};
use crate::secret::Secret;

/// Characters of a model's name in a message.
const NAME_MOST: usize = 120;

/// A provider and the model that was asked for.
#[derive(Clone, Debug)]
pub(super) struct Who {
    pub(super) provider: Arc<str>,
    pub(super) model: String,
    pub(super) key: Option<Secret>,
}

impl Who {
    /// The error of an answer that did not begin.
    pub(super) fn error(&self, fault: &Fault) -> BackendError {
        let (provider, model) = (&self.provider, self.model());
        let detail = self.detail(fault);
        let message = format!("{provider} did not answer for {model}: {detail}");
        BackendError::new(BackendErrorKind::Provider(fault.kind), message)
    }

    /// The error of an answer that had begun.
    pub(super) fn broke_off(&self, fault: &Fault) -> BackendError {
        let (provider, model) = (&self.provider, self.model());
        let detail = self.detail(fault);
        let message = format!("{provider} broke off its answer for {model}: {detail}");
        BackendError::new(BackendErrorKind::Provider(ProviderFault::BrokeOff), message)
    }

    fn model(&self) -> String {
        self.model.chars().take(NAME_MOST).collect()
    }

    fn detail(&self, fault: &Fault) -> String {
        scrubbed(&fault.detail, self.key.as_ref().map(Secret::reveal))
    }
}
