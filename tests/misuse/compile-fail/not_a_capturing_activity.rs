use dormouse_core::{Activity, App};

fn main() {
    let fee = 5;
    let _ = App::new().activity("charge", move |_: Activity, cents: u32| async move { Ok(cents + fee) });
}
