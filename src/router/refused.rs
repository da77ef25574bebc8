//! Why nobody may answer, as an error.

use std::time::Duration;

use super::policy::{Exclusion, Plan};
use crate::backend::{BackendError, BackendErrorKind, ProviderFault};

/// Whether only this machine could answer, and cannot; also where nobody knows the model.
pub(super) fn is_for_here(plan: &Plan) -> bool {
    let mut all = plan.candidates.iter().map(|one| one.excluded.as_ref());
    all.all(|excluded| {
        matches!(
            excluded,
            Some(Exclusion::LoadFailed | Exclusion::UnknownHere | Exclusion::NotHere)
        )
    })
}

/// Why nobody may answer, as an error.
pub(super) fn refused(plan: &Plan) -> BackendError {
    let message = plan.refusal();
    if plan.unknown.is_some() {
        return BackendError::new(BackendErrorKind::UnknownModel, message);
    }
    let first = plan.candidates.iter().find_map(|one| one.excluded.as_ref());
    BackendError::new(
        first.map_or(BackendErrorKind::UnknownModel, kind_of),
        message,
    )
}

fn kind_of(exclusion: &Exclusion) -> BackendErrorKind {
    match exclusion {
        Exclusion::NotConfigured { .. } | Exclusion::UnknownHere | Exclusion::NotHere => {
            BackendErrorKind::UnknownModel
        }
        Exclusion::LoadFailed => BackendErrorKind::LoadFailed { retry_after: None },
        Exclusion::ContextTooLong { tokens, holds } => BackendErrorKind::PromptTooLong {
            n_prompt_tokens: *tokens,
            n_ctx: *holds,
        },
        Exclusion::OutputTooLong { .. } => BackendErrorKind::InvalidRequest {
            param: "max_tokens",
        },
        Exclusion::Lacks { what: "vectors" } => BackendErrorKind::InvalidRequest { param: "model" },
        Exclusion::Lacks { what } => BackendErrorKind::Unsupported { param: what },
        Exclusion::OverBudget { .. } => BackendErrorKind::OverLimit { retry_after: None },
        Exclusion::BreakerOpen { retry_after_ms } => {
            let retry_after = Some(Duration::from_millis(*retry_after_ms));
            BackendErrorKind::Provider(ProviderFault::Unavailable { retry_after })
        }
        Exclusion::Offline
        | Exclusion::Privacy { .. }
        | Exclusion::NotAcceptable
        | Exclusion::NoCloud
        | Exclusion::NoFallback
        | Exclusion::Unpriced { .. }
        | Exclusion::TooDear { .. }
        | Exclusion::OverMaxCost { .. }
        | Exclusion::QualityBelow { .. }
        | Exclusion::Unscored { .. } => BackendErrorKind::NotAllowed,
    }
}
