from django.urls import path
from orders.views import order

urlpatterns = [path("order/<str:item>", order)]
