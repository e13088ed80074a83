from django.db import transaction
from django.http import JsonResponse

from .models import Order
from .tasks import pack


@transaction.atomic
def order(request, item):
    made = Order.objects.create(item=item)
    pack.delay_on_commit(made.pk)
    return JsonResponse({"order": made.pk})
