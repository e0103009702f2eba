//! The relay against real sockets: distance, order, faults, bounds.

use super::*;

/// Long enough for a loaded machine; a passing test does not wait for it.
const PATIENCE: Duration = Duration::from_secs(30);

fn names() -> (RegionName, RegionName) {
    ("eu-west-1".parse().unwrap(), "us-east-1".parse().unwrap())
}

fn wan(one_way: Duration, jitter: Duration, rate: Option<u64>) -> Wan {
    let (eu, us) = names();
    let distance = Distance { one_way, jitter, rate };
    Wan::new([((eu.clone(), us.clone()), distance), ((us, eu), distance)]).unwrap()
}

/// A relayed connection: the near end, the far end.
async fn connected(wan: &mut Wan) -> (TcpStream, TcpStream) {
    let (eu, us) = names();
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = wan.relay(&eu, &us, target.local_addr().unwrap()).await.unwrap();
    let near = TcpStream::connect(address).await.unwrap();
    let (far, _) = tokio::time::timeout(PATIENCE, target.accept()).await.unwrap().unwrap();
    (near, far)
}

/// Bytes in which a lost, doubled or moved one shows.
fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|index| (index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()[7]).collect()
}

#[tokio::test]
async fn a_round_trip_takes_the_distance_asked_for() {
    let (eu, us) = names();
    let mut wan = wan(Duration::from_millis(40), Duration::ZERO, None);
    let mut best = Duration::MAX;
    // The best of a few: a busy machine makes a trip longer, never shorter.
    for _ in 0..5 {
        best = best.min(wan.measure(&eu, &us).await.unwrap());
    }
    assert!(best >= Duration::from_millis(80), "{best:?}");
    assert!(best < Duration::from_millis(84), "{best:?}");
}

#[tokio::test]
async fn ten_megabytes_arrive_whole_and_in_order_under_jitter() {
    let mut wan = wan(Duration::from_millis(5), Duration::from_millis(10), None);
    let (mut near, mut far) = connected(&mut wan).await;
    let sent = pattern(10 << 20);
    let sending = {
        let sent = sent.clone();
        tokio::spawn(async move {
            near.write_all(&sent).await.unwrap();
            near.shutdown().await.unwrap();
            near
        })
    };
    let mut arrived = Vec::new();
    tokio::time::timeout(PATIENCE, far.read_to_end(&mut arrived)).await.unwrap().unwrap();
    assert!(arrived == sent, "{} of {} bytes, or out of order", arrived.len(), sent.len());

    // The other direction is still open after one has been finished.
    let mut near = sending.await.unwrap();
    far.write_all(b"received").await.unwrap();
    far.shutdown().await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, near.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, b"received");
}

#[tokio::test]
async fn a_cut_link_is_silent_and_goes_on_where_it_was_once_healed() {
    let (eu, us) = names();
    let mut wan = wan(Duration::from_millis(5), Duration::ZERO, None);
    let (mut near, mut far) = connected(&mut wan).await;
    wan.set(&eu, &us, LinkCondition::Cut).unwrap();
    near.write_all(b"into the dark").await.unwrap();
    let mut arrived = [0; 13];
    let silence = tokio::time::timeout(Duration::from_millis(200), far.read(&mut arrived)).await;
    assert!(silence.is_err(), "nothing crosses a cut link: {silence:?}");

    // The way back is not cut.
    far.write_all(b"!").await.unwrap();
    let mut answer = [0];
    tokio::time::timeout(PATIENCE, near.read_exact(&mut answer)).await.unwrap().unwrap();

    wan.set(&eu, &us, LinkCondition::Healthy).unwrap();
    tokio::time::timeout(PATIENCE, far.read_exact(&mut arrived)).await.unwrap().unwrap();
    assert_eq!(&arrived, b"into the dark");
}

#[tokio::test]
async fn a_resetting_link_resets_open_connections_and_new_ones() {
    let (eu, us) = names();
    let mut wan = wan(Duration::from_millis(5), Duration::ZERO, None);
    let (mut near, mut far) = connected(&mut wan).await;
    wan.set(&eu, &us, LinkCondition::Reset).unwrap();
    for end in [&mut near, &mut far] {
        let read = tokio::time::timeout(PATIENCE, end.read(&mut [0; 1])).await.unwrap();
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = wan.relay(&eu, &us, target.local_addr().unwrap()).await.unwrap();
    let mut new = TcpStream::connect(address).await.unwrap();
    let read = tokio::time::timeout(PATIENCE, new.read(&mut [0; 1])).await.unwrap();
    assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_process_that_is_gone_resets_connections_across_the_distance() {
    let (eu, us) = names();
    let mut wan = wan(Duration::from_millis(20), Duration::ZERO, None);
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let address = wan.relay(&eu, &us, gone).await.unwrap();
    let connected = Instant::now();
    let mut near = TcpStream::connect(address).await.unwrap();
    let read = tokio::time::timeout(PATIENCE, near.read(&mut [0; 1])).await.unwrap();
    assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert!(connected.elapsed() >= Duration::from_millis(40), "a refusal takes a round trip");
}

#[tokio::test]
async fn a_rate_is_kept() {
    let mut wan = wan(Duration::from_millis(1), Duration::ZERO, Some(1_000_000));
    let (mut near, mut far) = connected(&mut wan).await;
    let started = Instant::now();
    let sending = tokio::spawn(async move {
        near.write_all(&pattern(500_000)).await.unwrap();
        near
    });
    let mut arrived = vec![0; 500_000];
    tokio::time::timeout(PATIENCE, far.read_exact(&mut arrived)).await.unwrap().unwrap();
    assert!(started.elapsed() >= Duration::from_millis(450), "{:?}", started.elapsed());
    drop(sending.await.unwrap());
}

#[tokio::test]
async fn a_sender_waits_when_too_much_is_on_its_way() {
    let mut wan = wan(Duration::from_millis(1), Duration::ZERO, None);
    let (mut near, far) = connected(&mut wan).await;
    // Nobody reads at the far end: the relay's own bound, and the kernel's buffers, fill up.
    let chunk = vec![0; 1 << 20];
    let mut taken = 0;
    while let Ok(written) = tokio::time::timeout(Duration::from_secs(2), near.write(&chunk)).await {
        taken += written.unwrap();
        assert!(taken < 64 << 20, "the relay takes without bound");
    }
    drop(far);
}
