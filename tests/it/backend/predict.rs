//! What is foreseen of a request before it is asked, against what comes of it.

use std::time::Instant;

use ingle::backend::local::LocalBackend;
use ingle::engine::EngineOptions;
use ingle::pool::Standing;

use super::{answer, ask, read, smollm2, tiny, until_idle};

const QUESTION: &str = "Explain in a few sentences how a bicycle stays upright while it is moving, \
    and why it is harder to ride one slowly than to ride it fast.";

async fn standing(backend: &LocalBackend, model: &str) -> Standing {
    let foresight = backend.predict(&ask(model, QUESTION, Some(8))).await;
    foresight.unwrap().outlook.standing
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_is_foreseen_absent_ready_and_absent_again_but_known() {
    let (house, backend, model) = smollm2();
    let request = ask(&model, QUESTION, Some(32));
    let before = backend.predict(&request).await.unwrap();
    assert_eq!(before.outlook.standing, Standing::Absent);
    assert_eq!(before.prediction, None, "nothing was ever loaded here");
    assert_eq!(house.pool.status().await.len(), 0, "asking loads nothing");

    for _ in 0..3 {
        answer(&backend, &request).await;
    }
    let foreseen = backend.predict(&request).await.unwrap();
    assert_eq!(foreseen.outlook.standing, Standing::Ready);
    let prediction = foreseen.prediction.unwrap();
    let begun = Instant::now();
    let real = answer(&backend, &request).await;
    let took = begun.elapsed().as_secs_f64();
    let n_prompt_tokens = f64::from(real.usage.prompt_tokens);
    let times = f64::from(foreseen.n_prompt_tokens) / n_prompt_tokens;
    assert!((0.7..1.4).contains(&times), "{times} times the tokens");
    let times = took / prediction.total.p50;
    assert!(
        (0.2..5.0).contains(&times),
        "{took} s, foreseen {prediction:?}"
    );
    assert!(
        prediction.ttft.p05 <= prediction.ttft.p50 && prediction.ttft.p50 <= prediction.ttft.p90
    );
    assert!(prediction.ttft.p50 < prediction.total.p50);

    assert!(house.pool.unload(&model).await.unwrap());
    let cold = backend.predict(&request).await.unwrap();
    assert_eq!(cold.outlook.standing, Standing::Absent);
    let load = cold.outlook.load.expect("it was loaded before");
    let cold = cold.prediction.expect("its speed is remembered");
    assert!(cold.ttft.p50 >= load.p50, "{cold:?} {load:?}");
    let unknown = backend.predict(&ask("no-such-model", QUESTION, None)).await;
    assert!(unknown.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stands_in_line_knows_how_long_until_it_is_gone() {
    let one_at_a_time = EngineOptions {
        max_running: 1,
        ..EngineOptions::default()
    };
    let (house, backend) = tiny(one_at_a_time);
    answer(&backend, &ask("tiny", QUESTION, Some(40))).await;
    let request = ask("tiny", QUESTION, Some(60));
    let mut streams = Vec::new();
    let mut places = Vec::new();
    for _ in 0..6 {
        let (stream, place) = backend.chat_in_line(&request, None).await.unwrap();
        streams.push(stream);
        places.push(place);
    }
    let last = places[5].predict();
    let newcomer = backend.predict(&request).await.unwrap();
    if let (Some(last), Some(newcomer)) = (last, newcomer.prediction) {
        assert!(newcomer.total.p50 > 0.0 && last.total.p50 >= last.ttft.p50);
    }
    assert_eq!(standing(&backend, "tiny").await, Standing::Ready);
    for stream in streams {
        read(stream).await;
    }
    until_idle(&house).await;
    assert!(places.iter().all(|place| place.predict().is_none()));
    let idle = backend.predict(&request).await.unwrap();
    let calibration = &idle.outlook.engine.unwrap().calibration;
    let n: f32 = calibration
        .ttft
        .to_p50
        .buckets()
        .map(|bucket| bucket.n)
        .sum();
    assert!(
        n > 5.0,
        "every answer tells how right its prediction was: {n}"
    );
}
