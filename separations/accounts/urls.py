"""The addresses of accounts; they answer 404 when ACCOUNTS=off."""

from django.urls import path

from separations.accounts import token_page, views

app_name = "accounts"
urlpatterns = [
    path("", views.account, name="account"),
    path("signup", views.sign_up, name="signup"),
    path("login", views.log_in, name="login"),
    path("logout", views.log_out, name="logout"),
    path("email", views.change_email, name="email"),
    path("confirm/<token>", views.confirm, name="confirm"),
    path("password", views.change_password, name="password"),
    path("reset", views.reset, name="reset"),
    path("reset/sent", views.reset_sent, name="reset_sent"),
    path("reset/<uidb64>/<token>", views.reset_confirm, name="reset_confirm"),
    path("tokens", token_page.token_page, name="tokens"),
    path("tokens/<uuid:token_id>/revoke", token_page.revoke, name="revoke_token"),
    path("webhooks/secret", token_page.renew_secret, name="renew_secret"),
]
