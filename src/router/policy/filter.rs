//! Judges one candidate: what it would take, and what excludes it.

use std::time::Duration;

use super::gather::{Found, Tier};
use super::question::Asked;
use super::rank::{Judged, Place, places};
use super::reason::{Exclusion, Reason, millis};
use super::snapshot::{Breaker, Facts, LocalState};
use super::{Candidate, cost, openrouter};
use crate::config::router::{Dialect, LOCAL_REMOTE, ProviderSettings};
use crate::egress::Keeping;
use crate::money::MicroUsd;
use crate::router::names::{Name, OPENROUTER_AUTO, Target};
use crate::router::prices::Price;

/// Tokens of an answer below which none is worth having; some providers refuse to make fewer.
const FEWEST_TOKENS: u32 = 16;
/// Tokens of an answer whose length nobody knows anything about.
const USUAL_TOKENS: u32 = 256;

/// A candidate that is being judged.
struct Case<'a> {
    asked: &'a Asked<'a>,
    found: Found<'a>,
    provider: Option<&'a ProviderSettings>,
    facts: Facts,
    reasons: Vec<Reason>,
    max_tokens: Option<u32>,
    price: Option<Price>,
    /// Prices that a cap has made where nobody knows any: OpenRouter is told to hold its providers to them.
    bound: Option<Price>,
    score: Option<f64>,
}

/// Judges a candidate.
pub(super) fn judge<'a>(found: Found<'a>, asked: &'a Asked<'a>) -> Judged {
    let settings = asked.snapshot.settings;
    let facts = asked.snapshot.facts.facts(&found.target);
    let reasons = found.whys.iter().cloned().map(Reason::Source).collect();
    let names = known_as(&found, asked);
    let score = asked.snapshot.quality.of(names.iter().map(String::as_str));
    let mut case = Case {
        provider: settings.providers.get(&found.target.provider),
        price: price(&found.target, &facts, asked),
        score: score.map(|score| score.score),
        max_tokens: asked.question.max_tokens,
        bound: None,
        found,
        facts,
        reasons,
        asked,
    };
    let excluded = case.exclusion(&names).err();
    case.finish(excluded)
}

/// All names of a candidate, the most particular first.
fn known_as(found: &Found<'_>, asked: &Asked<'_>) -> Vec<String> {
    let target = &found.target;
    let mut names = vec![target.to_string(), target.model.clone()];
    names.extend(
        found
            .local
            .into_iter()
            .flat_map(|local| local.names.clone()),
    );
    let canonical = names.iter().find_map(|name| {
        let canonical = asked.snapshot.names.canonical(name)?;
        Some(canonical.to_owned())
    });
    names.extend(canonical);
    names
}

/// What a candidate costs. Work of this machine is free unless somebody says otherwise.
fn price(target: &Target, facts: &Facts, asked: &Asked<'_>) -> Option<Price> {
    let free = target.is_local() || is_ours(&target.provider, asked);
    facts.price.or_else(|| free.then_some(Price::FREE))
}

fn is_ours(provider: &str, asked: &Asked<'_>) -> bool {
    let provider = asked.snapshot.settings.providers.get(provider);
    provider.is_some_and(|provider| provider.keeping == Keeping::Ours)
}

impl Case<'_> {
    /// Everything that may exclude it, the gravest first.
    fn exclusion(&mut self, names: &[String]) -> Result<(), Exclusion> {
        self.place()?;
        self.acceptable(names)?;
        if self.found.target.is_local() {
            self.here()?;
        }
        self.capable()?;
        self.fits()?;
        self.affordable()?;
        self.good()?;
        match self.facts.breaker {
            Breaker::Open { retry_after } => {
                return Err(Exclusion::BreakerOpen {
                    retry_after_ms: millis(retry_after),
                });
            }
            Breaker::HalfOpen => self.reasons.push(Reason::Probe),
            Breaker::Closed => {}
        }
        Ok(())
    }

    /// Whether the prompt may go there at all.
    fn place(&self) -> Result<(), Exclusion> {
        if self.found.target.is_local() {
            return Ok(());
        }
        let Some(provider) = self.provider else {
            return Err(Exclusion::NotConfigured {
                provider: self.found.target.provider.clone(),
            });
        };
        if !self.asked.privacy.allows(provider.keeping) {
            return Err(Exclusion::privacy(self.asked.privacy));
        }
        if self.asked.snapshot.offline {
            return Err(Exclusion::Offline);
        }
        let is_cloud = provider.keeping != Keeping::Ours && provider.name != LOCAL_REMOTE;
        if is_cloud && !self.asked.cloud && self.found.tier > Tier::Asked {
            return Err(Exclusion::NoCloud);
        }
        Ok(())
    }

    fn acceptable(&self, names: &[String]) -> Result<(), Exclusion> {
        let Some(patterns) = &self.asked.acceptable else {
            return Ok(());
        };
        let target = &self.found.target;
        let names = || names.iter().skip(1).map(String::as_str);
        let is_listed = patterns
            .iter()
            .any(|pattern| pattern.matches(&target.provider, names()));
        // It is told which models it may choose from.
        let chooses = self.is_auto() && !openrouter::allowed_models(patterns).is_empty();
        if is_listed || chooses {
            Ok(())
        } else {
            Err(Exclusion::NotAcceptable)
        }
    }

    fn is_auto(&self) -> bool {
        self.is_openrouter() && self.found.target.model == OPENROUTER_AUTO
    }

    fn is_openrouter(&self) -> bool {
        self.provider
            .is_some_and(|provider| provider.dialect == Dialect::OpenRouter)
    }

    /// Whether the engine has the model.
    fn here(&mut self) -> Result<(), Exclusion> {
        let Some(local) = self.found.local else {
            return Err(Exclusion::UnknownHere);
        };
        match local.state {
            LocalState::Ready => Ok(()),
            LocalState::Loading | LocalState::Stored => {
                self.reasons.push(Reason::NotReady { state: local.state });
                Ok(())
            }
            // Who names a model wants it fetched.
            LocalState::Absent if self.found.tier == Tier::Asked => {
                self.reasons.push(Reason::NotReady { state: local.state });
                Ok(())
            }
            LocalState::Absent => Err(Exclusion::NotHere),
            LocalState::Failed => Err(Exclusion::LoadFailed),
        }
    }

    fn capable(&self) -> Result<(), Exclusion> {
        let known = [
            ("tools", self.facts.tools),
            ("images", self.facts.images),
            ("json", self.facts.json),
            ("prefix", self.facts.prefix),
            ("vectors", self.facts.vectors),
        ];
        let needs = self.asked.question.needs;
        let lacking = known
            .iter()
            .find(|(what, can)| *can == Some(false) && needs.has(what));
        match lacking {
            Some((what, _)) => Err(Exclusion::Lacks { what }),
            None => Ok(()),
        }
    }

    /// Whether prompt and answer fit; settles how long the answer may be.
    fn fits(&mut self) -> Result<(), Exclusion> {
        let question = self.asked.question;
        if question.needs.vectors {
            // Each input has to fit alone, which whoever makes the vectors counts exactly.
            return Ok(());
        }
        let prompt = question.prompt.about;
        if let Some(holds) = self.facts.context
            && prompt >= holds
        {
            return Err(Exclusion::ContextTooLong {
                tokens: prompt,
                holds,
            });
        }
        if self.found.target.is_local() {
            return Ok(());
        }
        let room = self.facts.context.map(|holds| holds - prompt);
        if let Some(tokens) = question.max_tokens {
            if let Some(makes) = self.facts.max_output.filter(|makes| *makes < tokens) {
                return Err(Exclusion::OutputTooLong { tokens, makes });
            }
            if let (Some(holds), Some(_)) = (self.facts.context, room.filter(|room| *room < tokens))
            {
                return Err(Exclusion::ContextTooLong {
                    tokens: prompt.saturating_add(tokens),
                    holds,
                });
            }
            return Ok(());
        }
        let usual = self.asked.snapshot.settings.max_tokens;
        let most = [room, self.facts.max_output].into_iter().flatten();
        self.max_tokens = Some(most.fold(usual, u32::min).max(1));
        Ok(())
    }

    /// Whether it costs no more than it may; shortens an answer of no given length so that it does.
    fn affordable(&mut self) -> Result<(), Exclusion> {
        let preferences = &self.asked.preferences;
        let per_token = preferences.cost_per_token();
        let max_cost = preferences.max_cost;
        if let Some(most) = per_token {
            self.per_token(most)?;
        }
        if let Some(most) = max_cost {
            let cap = floor_micros(most);
            self.bound_openrouter(cap);
            self.within(cap, "max_cost", |worst| Exclusion::OverMaxCost {
                worst: worst.to_usd(),
                most,
            })?;
        }
        if let Some(left) = self.asked.snapshot.budget_left {
            self.within(left, "the budget", |worst| Exclusion::OverBudget {
                worst: worst.to_usd(),
                left: left.to_usd(),
            })?;
        }
        Ok(())
    }

    /// A cap on the price of tokens: on what a request of this shape costs, and at OpenRouter, which holds each price to
    /// it, on both.
    fn per_token(&mut self, most: f64) -> Result<(), Exclusion> {
        let cap = openrouter::per_million(most);
        let Some(price) = self.price else {
            if self.is_openrouter() {
                self.bind(cap.0);
                return Ok(());
            }
            return Err(Exclusion::Unpriced {
                limit: "a cap on the price of tokens",
            });
        };
        let too_dear = |per_million: u64| Exclusion::TooDear {
            costs: per_million as f64 / 1e12,
            most,
        };
        let n_prompt = self.asked.question.prompt.about;
        let rates = cost::tokens(&price, n_prompt);
        let dearest = rates.prompt.max(rates.completion).0;
        if self.is_openrouter() && dearest > cap.0 {
            return Err(too_dear(dearest));
        }
        let n_answer = self.max_tokens.unwrap_or_else(|| self.expected());
        match cost::mean_above(&price, n_prompt, n_answer, cap.0) {
            Some(mean) => Err(too_dear(mean)),
            None => Ok(()),
        }
    }

    /// What nobody knows the price of is priced at OpenRouter by the cap, which OpenRouter holds its prices to.
    fn bound_openrouter(&mut self, cap: MicroUsd) {
        if self.price.is_some() || !self.is_openrouter() {
            return;
        }
        let tokens = u64::from(self.asked.question.prompt.at_most)
            + u64::from(self.max_tokens.unwrap_or_default());
        let per_million = u128::from(cap.0) * 1_000_000 / u128::from(tokens.max(1));
        self.bind(u64::try_from(per_million).unwrap_or(u64::MAX));
    }

    fn bind(&mut self, per_million: u64) {
        self.price = Some(cost::flat(per_million));
        self.bound = self.price;
    }

    fn within(
        &mut self,
        most: MicroUsd,
        limit: &'static str,
        over: impl FnOnce(MicroUsd) -> Exclusion,
    ) -> Result<(), Exclusion> {
        let Some(price) = self.price else {
            return Err(Exclusion::Unpriced { limit });
        };
        let question = self.asked.question;
        let prompt = question.prompt.at_most;
        let n_answer = self.max_tokens.unwrap_or_else(|| self.expected());
        let worst = price.worst(prompt, n_answer);
        if worst <= most {
            return Ok(());
        }
        match cost::affordable(&price, most, prompt) {
            Some(tokens) if question.max_tokens.is_none() && tokens >= FEWEST_TOKENS => {
                self.max_tokens = Some(tokens);
                self.reasons.push(Reason::Shortened {
                    max_tokens: tokens,
                    because: limit,
                });
                Ok(())
            }
            _ => Err(over(worst)),
        }
    }

    /// Whether its answers are good enough; vectors have no score.
    fn good(&self) -> Result<(), Exclusion> {
        let threshold = self.asked.preferences.quality_threshold;
        let Some(threshold) = threshold.filter(|_| !self.asked.question.needs.vectors) else {
            return Ok(());
        };
        match self.score {
            None => Err(Exclusion::Unscored { threshold }),
            Some(score) if score < threshold => Err(Exclusion::QualityBelow { score, threshold }),
            Some(_) => Ok(()),
        }
    }

    /// Tokens that the answer is likely to have.
    fn expected(&self) -> u32 {
        let likely = self.asked.question.expected_tokens.unwrap_or(USUAL_TOKENS);
        likely.min(self.max_tokens.unwrap_or(u32::MAX))
    }

    /// Whether it is expected to miss the deadline, or cannot take the request now. A provider that was named is asked
    /// all the same.
    fn is_late(&mut self) -> bool {
        let is_local = self.found.target.is_local();
        let named = self.found.tier == Tier::Asked && !is_local;
        let first = self.first();
        let foreseen = self.found.local.and_then(|local| local.is_late);
        let mut late = false;
        if let (Some(first), Some(deadline)) = (first, self.asked.deadline(is_local))
            && foreseen.unwrap_or(first > deadline)
        {
            self.reasons.push(Reason::Late {
                predicted_ms: millis(first),
                deadline_ms: millis(deadline),
            });
            late = !named;
        }
        let Some(local) = self.found.local else {
            return late;
        };
        if let Some(why) = local.full.clone() {
            self.reasons.push(Reason::Full { why });
            late = true;
        }
        // It would have to be fetched first: who has it answers before.
        let is_local_meant = matches!(self.asked.name, Name::Of(_));
        late || (local.state == LocalState::Absent && !is_local_meant)
    }

    fn first(&self) -> Option<Duration> {
        match self.found.local {
            Some(local) => local.first,
            None => self.facts.first,
        }
    }

    fn total(&self) -> Option<Duration> {
        if let Some(local) = self.found.local {
            return local.total;
        }
        let (first, per_token) = (self.facts.first?, self.facts.per_token?);
        Some(first.saturating_add(per_token.saturating_mul(self.expected())))
    }

    fn finish(mut self, excluded: Option<Exclusion>) -> Judged {
        let is_late = self.is_late();
        let asked = self.asked;
        let question = asked.question;
        let team = question.team.as_deref();
        let primary = team.and_then(|team| team.primary_provider.as_deref());
        let is_primary = primary == Some(&*self.found.target.provider)
            || (primary == Some("local") && self.found.target.provider == LOCAL_REMOTE);
        if is_primary {
            self.reasons.push(Reason::PrimaryProvider);
        }
        let n_answer = self.max_tokens.unwrap_or_else(|| self.expected());
        // What a machine of ours costs by the hour.
        let time = self.total().unwrap_or_default();
        let (n_prompt, n_likely) = (question.prompt.about, self.expected());
        let predicted = |price: &Price| cost::likely(price, n_prompt, n_likely, time);
        let worst = |price: &Price| {
            let tokens = price.worst(question.prompt.at_most, n_answer);
            tokens.plus(price.of_time(time))
        };
        let place = match self.provider {
            None if self.found.target.is_local() => Place::Here,
            Some(provider) if provider.keeping == Keeping::Ours => Place::Ours,
            Some(provider) if provider.name == LOCAL_REMOTE => Place::Ours,
            _ => Place::Cloud,
        };
        let openrouter = self
            .is_openrouter()
            .then(|| openrouter::wish(asked, self.is_auto(), self.bound, self.expected()));
        Judged {
            place,
            is_late,
            is_primary,
            places: places(&self.found.whys),
            tier: self.found.tier,
            candidate: Candidate {
                temperature: self.found.temperature,
                max_tokens: self.max_tokens,
                predicted_ttft: self.first(),
                predicted_total: self.total(),
                calibration: self.facts.calibration,
                price: self.price,
                predicted_cost: self.price.as_ref().map(predicted),
                worst_cost: self.price.as_ref().map(worst),
                quality: self.score,
                openrouter,
                excluded,
                why: self.reasons,
                target: self.found.target,
            },
        }
    }
}

/// The most whole micro-dollars that are no more than `usd`.
fn floor_micros(usd: f64) -> MicroUsd {
    let up = MicroUsd::at_least(usd).unwrap_or(MicroUsd(u64::MAX));
    if up.to_usd() > usd {
        up.minus(MicroUsd(1))
    } else {
        up
    }
}
