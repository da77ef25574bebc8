//! How much others ask for.

/// Time after which a request counts half. Units: seconds.
const HALF_LIFE: f64 = 60.0;
/// Until something is known of so much time, no traffic is expected. Units: seconds.
const WARM_UP: f64 = 5.0;

/// Requests that others send, as the last minutes had them: they share the steps of whoever runs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Traffic {
    /// Prompts begun a second.
    pub per_second: f64,
    /// Tokens of one of them.
    pub n_prompt_tokens: u32,
}

/// Counts requests as their prompts begin; older ones fade. Those who leave the queue before are not counted:
/// they share no step.
#[derive(Clone, Copy, Debug, Default)]
pub struct TrafficMeter {
    n_requests: f64,
    n_tokens: f64,
    /// What the counts cover. Units: seconds.
    covered: f64,
    last: f64,
}

impl TrafficMeter {
    /// A prompt begins, at a moment of a clock that only goes forward. Units: seconds.
    pub fn add(&mut self, n_prompt_tokens: u32, now: f64) {
        *self = self.at(now);
        self.n_requests += 1.0;
        self.n_tokens += f64::from(n_prompt_tokens);
    }

    /// The traffic at a moment.
    pub fn traffic(&self, now: f64) -> Traffic {
        let meter = self.at(now);
        if meter.covered < WARM_UP || meter.n_requests < 1e-3 {
            return Traffic::default();
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a mean of lengths that are such numbers"
        )]
        let n_prompt_tokens = (meter.n_tokens / meter.n_requests) as u32;
        Traffic {
            per_second: meter.n_requests / meter.covered,
            n_prompt_tokens,
        }
    }

    fn at(mut self, now: f64) -> Self {
        let gone = (now - self.last).max(0.0);
        let fade = (-gone / HALF_LIFE).exp2();
        self.n_requests *= fade;
        self.n_tokens *= fade;
        // The time that is covered fades like what happened in it.
        let scale = HALF_LIFE / std::f64::consts::LN_2;
        self.covered = self.covered * fade + scale * (1.0 - fade);
        self.last = now;
        self
    }
}
