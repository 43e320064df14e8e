use dormouse_core::{Activity, App};

fn main() {
    let url = String::from("https://bank.example");
    let _ = App::new().activity("charge", move |_: Activity, _: ()| {
        let url = url.clone();
        async move { Ok(url) }
    });
}
