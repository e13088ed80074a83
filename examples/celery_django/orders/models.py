from django.db import models


class Order(models.Model):
    item = models.CharField(max_length=80)
    packed = models.BooleanField(default=False)

    class Meta:
        app_label = "orders"
