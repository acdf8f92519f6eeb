attnbookLive.network("bricks", {"shapes": {"squeeze": [12]}, "extra": {}},
"NC0eLTMtQi5lMPox1jI7Mq4wlC5KLR0t");
